package authn

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

const (
	refusalMemory       = 60 * time.Second
	detailWrongIssuer   = "client '%s' matches by its %s, but no certificate of the chain is in its issued_by"
	detailChainRequired = "client '%s' matches by its %s, but it has %s and the chain does not verify: %s"
	detailNoMatch       = "no client of the realm has a matching credential"
)

// choose picks one of the matching clients. Only the client_id of the request can
// decide between several; a disabled client never counts.
func choose(matches []admission, clientID string) (admission, *validators.Refusal) {
	var chosen admission
	disabled, mismatch := "", false
	for _, m := range matches {
		switch {
		case clientID != "" && m.Client.ID != clientID:
			mismatch = true
		case m.Client.Disabled:
			disabled = cmp.Or(disabled, m.Client.ID)
		case chosen.Credential == nil:
			chosen = m
		case chosen.Client != m.Client:
			return admission{}, &validators.Refusal{
				Reason: validators.CertificateAmbiguous,
				Detail: fmt.Sprintf("the certificate matches client '%s' and client '%s'; the request must name one", chosen.Client.ID, m.Client.ID),
			}
		}
	}
	switch {
	case chosen.Credential != nil:
		return chosen, nil
	case disabled != "":
		return admission{}, &validators.Refusal{Reason: validators.ClientDisabled, Detail: fmt.Sprintf("client '%s' is disabled", disabled)}
	case mismatch:
		return admission{}, &validators.Refusal{
			Reason: validators.ClientMismatch,
			Detail: fmt.Sprintf("the certificate belongs to client '%s', the request names %.200q", matches[0].Client.ID, clientID),
		}
	}
	return admission{}, &validators.Refusal{Reason: validators.CertificateUnknown, Detail: detailNoMatch}
}

// examine reaches a verdict on a chain that is in no cache: pins first, then the
// chain, then names. In this order, the time it takes does not reveal to a stranger
// which names are registered.
func (a *Authenticator) examine(ctx context.Context, presented []*x509.Certificate, now time.Time) *verdict {
	var chains chainResult
	v := a.examineWith(ctx, presented, now, &chains)
	v.leafAlone = !chains.done
	if chains.done {
		// another chain may verify then, or one at all
		v.until = earlier(v.until, a.config.Trust.NextValid(presented, now))
	}
	return v
}

// examineWith is examine; chains says afterwards whether a chain was looked at.
func (a *Authenticator) examineWith(ctx context.Context, presented []*x509.Certificate, now time.Time, chains *chainResult) *verdict {
	leaf := presented[0]
	v := &verdict{until: leaf.NotAfter}
	refused := func(refusal *validators.Refusal) *verdict {
		return &verdict{refusal: refusal, until: earlier(now.Add(refusalMemory), chains.until), candidates: v.candidates}
	}
	if refusal := validators.CheckLeaf(leaf); refusal != nil {
		return refused(refusal)
	}
	if a.config.StrongKeys {
		if refusal := validators.CheckKeyStrength(leaf); refusal != nil {
			return refused(refusal)
		}
	}
	if a.config.Revocation != nil {
		if refusal := a.config.Revocation.CheckDenied(leaf); refusal != nil {
			return refused(refusal)
		}
	}
	sum := sha256.Sum256(leaf.Raw)
	v.thumbprint = validators.X5tS256(sum)
	v.candidates = candidates{asked: askedPins, pins: a.config.Registry.Pins(leaf, sum)}

	// pinRefusal is why a matching pin does not admit
	var pinRefusal *validators.Refusal
	for _, pin := range v.candidates.pins {
		if pin.Ended(now) {
			if pinRefusal == nil {
				pinRefusal = &validators.Refusal{Reason: validators.CertificateUnknown, Detail: endedText(pin)}
			}
			continue
		}
		var chain []*x509.Certificate
		if pin.NeedsChain() {
			if chain = chains.verifyOnce(ctx, a, presented, now).admit(pin.Client, v); chain == nil {
				pinRefusal = chains.whyNot(pin)
				continue
			}
		}
		v.matches = append(v.matches, admission{Match: clients.Match{Credential: pin, Matched: pin.Value}, chain: chain})
		v.until = earlier(v.until, pin.Until())
	}
	if slices.ContainsFunc(v.matches, func(m admission) bool { return !m.Client.Disabled }) {
		return v
	}
	refusal := a.examineNames(ctx, presented, now, chains, v)
	if disabled := len(v.matches) > 0; disabled && refusal != nil {
		v.until = earlier(v.until, earlier(now.Add(refusalMemory), chains.until))
		return v
	}
	switch {
	case refusal == nil:
		return v
	case refusal.Reason == validators.CertificateUnknown && pinRefusal != nil:
		return refused(pinRefusal)
	}
	return refused(refusal)
}

// examineNames adds to the verdict the clients whose names match a certificate that
// no pin admits. The refusal says why there are none.
func (a *Authenticator) examineNames(ctx context.Context, presented []*x509.Certificate, now time.Time, chains *chainResult, v *verdict) *validators.Refusal {
	unknown := &validators.Refusal{Reason: validators.CertificateUnknown, Detail: detailNoMatch}
	v.candidates.asked, v.candidates.hasPKI = askedPKI, a.config.Registry.HasPKI()
	if !v.candidates.hasPKI {
		return unknown
	}
	if refusal := chains.verifyOnce(ctx, a, presented, now).refusal; refusal != nil {
		return refusal
	}
	if refusal := validators.CheckPKILeaf(presented[0]); refusal != nil {
		return refusal
	}
	found := false
	names, nameRefusal := a.config.Registry.Names(presented[0])
	v.candidates.asked, v.candidates.names, v.candidates.notSVID = askedNames, names, nameRefusal != nil
	for _, name := range names {
		if chain := chains.admit(name.Client, v); chain != nil {
			v.matches = append(v.matches, admission{Match: name, chain: chain})
			found = true
		}
	}
	switch {
	case found:
		return nil
	case len(names) > 0:
		return chains.whyNot(names[0].Credential)
	case nameRefusal != nil:
		return nameRefusal
	}
	return unknown
}

// endedText says that the `until` of a pin has passed.
func endedText(pin *clients.Credential) string {
	return fmt.Sprintf("the %s of client '%s' ended at %s", pin.Kind, pin.Client.ID, pin.Until().UTC().Format(time.RFC3339))
}

// chainResult is the outcome of verifying the chains of a leaf and checking them for
// revoked certificates; see [chainResult.verifyOnce].
type chainResult struct {
	done   bool
	chains []goodChain
	// refusal is why there is no good chain. It holds until the given time.
	refusal *validators.Refusal
	until   time.Time
}

// goodChain is a verified chain without a revoked certificate. It stays one until
// the given time.
type goodChain struct {
	certificates []*x509.Certificate
	until        time.Time
}

// verifyOnce verifies the chains when it is called for the first time.
func (c *chainResult) verifyOnce(ctx context.Context, a *Authenticator, presented []*x509.Certificate, now time.Time) *chainResult {
	if c.done {
		return c
	}
	c.done = true
	verified, err := a.config.Trust.Verify(presented[0], presented[1:], now)
	if err != nil {
		c.refusal = &validators.Refusal{Reason: validators.CertificateUntrusted, Detail: err.Error()}
		return c
	}
	// all chains of a leaf share one deadline
	ctx, cancel := context.WithTimeout(ctx, revocation.DefaultOCSPTimeout)
	defer cancel()
	for _, chain := range verified {
		good := goodChain{certificates: chain, until: validators.ChainExpiry(chain)}
		if a.config.Revocation != nil {
			refusal, until := a.config.Revocation.Check(ctx, chain, now)
			if refusal != nil {
				c.refusal, c.until = refusal, earlier(c.until, until)
				continue
			}
			good.until = earlier(good.until, until)
		}
		c.chains = append(c.chains, good)
	}
	if len(c.chains) > 0 {
		c.refusal = nil
	}
	return c
}

// earlier returns the earlier of two times. The zero time counts as never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// admit returns the first good chain that meets the client's issued_by, or nil, and
// shortens the verdict to the life of that chain.
func (c *chainResult) admit(client *clients.Client, v *verdict) []*x509.Certificate {
	for _, chain := range c.chains {
		if validators.IssuedBy(chain.certificates, client.IssuedBy) {
			v.until = earlier(v.until, chain.until)
			return chain.certificates
		}
	}
	return nil
}

// whyNot returns why a matching credential does not admit.
func (c *chainResult) whyNot(cred *clients.Credential) *validators.Refusal {
	switch {
	case c.refusal == nil:
		return &validators.Refusal{Reason: validators.CertificateUntrusted, Detail: fmt.Sprintf(detailWrongIssuer, cred.Client.ID, cred.Kind)}
	case c.refusal.Reason == validators.CertificateUntrusted:
		return &validators.Refusal{Reason: validators.CertificateUntrusted, Detail: fmt.Sprintf(detailChainRequired, cred.Client.ID, cred.Kind, chainSettings(cred.Client), c.refusal.Detail)}
	}
	return c.refusal
}
