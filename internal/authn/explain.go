package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxExplained bounds what is said about one certificate.
const maxExplained = 16

// Explain returns what a refused certificate comes close to, for an operator who
// asks about it. It says more than hints do: which client the certificate would
// identify if it were valid and suitable, the CAs of its chain, and what the client
// named by clientID declares.
func (a *Authenticator) Explain(presented []*x509.Certificate, clientID string, refusal *validators.Refusal) []string {
	r := a.about(presented, refusal)
	misses := r.nearMisses()
	if len(presented) == 0 {
		return misses
	}
	switch refusal.Reason {
	case validators.CertificateExpired:
		misses = append(misses, a.whenValid(presented, clientID)...)
	case validators.CertificateUnsuitable:
		misses = append(misses, r.ifSuitable()...)
	case validators.CertificateUntrusted:
		misses = append(misses, r.chainHas()...)
	}
	if clientID != "" {
		misses = append(misses, r.declares(clientID)...)
	}
	// a certificate can lead to a client in several ways
	var distinct []string
	for _, miss := range misses {
		if !slices.Contains(distinct, miss) && len(distinct) < maxExplained {
			distinct = append(distinct, miss)
		}
	}
	return distinct
}

// about returns a refused chain, for what operators are told about it.
func (a *Authenticator) about(presented []*x509.Certificate, refusal *validators.Refusal) *refusedChain {
	return &refusedChain{registry: a.config.Registry, trust: a.config.Trust, presented: presented, refusal: refusal, now: a.config.Now()}
}

// Registrable reports whether registering a refused certificate by its thumbprint
// would help.
func (a *Authenticator) Registrable(presented []*x509.Certificate, refusal *validators.Refusal) bool {
	return a.about(presented, refusal).registrable()
}

// chainHas returns what issued_by could name if the chain verifies.
func (r *refusedChain) chainHas() (texts []string) {
	if r.trust == nil {
		return nil
	}
	chains, err := r.trust.Verify(r.presented[0], r.presented[1:], r.now)
	if err != nil {
		return nil
	}
	for _, ca := range chains[0][1:] {
		texts = append(texts, fmt.Sprintf("the chain verifies, with the CA '%s': issued_by \"%x\"", dn.Format(ca.RawSubject), sha256.Sum256(ca.RawSubjectPublicKeyInfo)))
	}
	return texts
}

// whenValid describes the outcome within the certificate's validity period, at the
// time closest to now.
func (a *Authenticator) whenValid(presented []*x509.Certificate, clientID string) []string {
	leaf, at := presented[0], a.config.Now()
	switch {
	case at.Before(leaf.NotBefore):
		at = leaf.NotBefore
	case at.After(leaf.NotAfter):
		at = leaf.NotAfter
	}
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		return []string{"its notAfter is before its notBefore, so it is never valid"}
	}
	v := a.examine(context.Background(), presented, at)
	refusal := v.refusal
	if refusal == nil {
		var match admission
		if match, refusal = choose(v.matches, clientID); refusal == nil {
			return []string{fmt.Sprintf("within its validity period it would be client '%s', by the %s '%s'", match.Client.ID, match.Kind, match.Matched)}
		}
	}
	text := "within its validity period it would still be refused: " + refusal.Error()
	return append([]string{text}, a.WithClock(func() time.Time { return at }).Explain(presented, "", refusal)...)
}

// ifSuitable describes which clients a certificate would identify if it were suitable
// for client authentication.
func (r *refusedChain) ifSuitable() (texts []string) {
	leaf := r.presented[0]
	for _, pin := range r.registry.Pins(leaf, sha256.Sum256(leaf.Raw)) {
		if pin.Ended(r.now) {
			texts = append(texts, endedText(pin))
			continue
		}
		texts = append(texts, fmt.Sprintf("otherwise it would be client '%s', by the %s '%s'", pin.Client.ID, pin.Kind, pin.Value))
	}
	names, noSVID := r.registry.Names(leaf)
	for _, name := range names {
		texts = append(texts, fmt.Sprintf("otherwise it would be client '%s', by the %s '%s', if its chain verifies", name.Client.ID, name.Kind, name.Matched))
	}
	if len(texts) == 0 && noSVID != nil {
		texts = append(texts, "otherwise a client declares its SPIFFE ID")
	}
	if len(texts) == 0 {
		texts = append(texts, "otherwise it would still match no client")
	}
	return texts
}

// declares describes how the client would be recognized.
func (r *refusedChain) declares(clientID string) []string {
	client := r.registry.Client(clientID)
	if client == nil {
		return []string{fmt.Sprintf("the realm has no client %.200q", clientID)}
	}
	var texts []string
	for _, cred := range client.Credentials {
		texts = append(texts, fmt.Sprintf("client '%s' declares the %s '%s'%s", client.ID, cred.Kind, cred.Value, cred.Difference(r.presented[0])))
	}
	for _, cred := range r.registry.Listed(client) {
		texts = append(texts, fmt.Sprintf("the JWKS of client '%s' lists the certificate '%s'", client.ID, cred.Value))
	}
	return texts
}

// UnderShadow describes the outcome if the shadow pool were the trust pool. It
// returns "" without a shadow pool.
func (a *Authenticator) UnderShadow(ctx context.Context, presented []*x509.Certificate, clientID string) string {
	if a.config.ShadowTrust == nil {
		return ""
	}
	config := a.config
	config.Trust, config.ShadowTrust = config.ShadowTrust, nil
	id, refusal, _ := New(config).Decide(ctx, presented, clientID)
	if refusal != nil {
		return fmt.Sprintf("refused: %s: %s", refusal.Reason, refusal.Detail)
	}
	return "client " + id.Client().ID
}
