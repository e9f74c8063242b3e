package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxExplained bounds what is said about one certificate.
const maxExplained = 16

// Explain returns what a refused certificate comes close to, for an operator who
// asks about it. It says more than [Authenticator.Hint]: which client the
// certificate would identify if it were valid and suitable, the CAs of its chain,
// and what the client named by clientID declares.
func (a *Authenticator) Explain(presented []*x509.Certificate, clientID string, refusal *validators.Refusal, now time.Time) []string {
	misses := a.nearMisses(presented, refusal, now)
	if len(presented) == 0 {
		return misses
	}
	leaf := presented[0]
	switch refusal.Reason {
	case validators.CertificateExpired:
		misses = append(misses, a.whenValid(presented, clientID, now)...)
	case validators.CertificateUnsuitable:
		misses = append(misses, a.ifSuitable(leaf, now)...)
	case validators.CertificateUntrusted:
		misses = append(misses, a.chainHas(presented, now)...)
	}
	if clientID != "" {
		misses = append(misses, a.declares(leaf, clientID)...)
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

// chainHas returns what issued_by could name if the chain verifies.
func (a *Authenticator) chainHas(presented []*x509.Certificate, now time.Time) (texts []string) {
	if a.config.Trust == nil {
		return nil
	}
	chains, err := a.config.Trust.Verify(presented[0], presented[1:], now)
	if err != nil {
		return nil
	}
	for _, ca := range chains[0][1:] {
		texts = append(texts, fmt.Sprintf("the chain verifies, with the CA '%s': issued_by \"%x\"", validators.FormatDN(ca.RawSubject), sha256.Sum256(ca.RawSubjectPublicKeyInfo)))
	}
	return texts
}

// whenValid describes the outcome within the certificate's validity period, at the
// time closest to now.
func (a *Authenticator) whenValid(presented []*x509.Certificate, clientID string, now time.Time) []string {
	leaf, at := presented[0], now
	switch {
	case now.Before(leaf.NotBefore):
		at = leaf.NotBefore
	case now.After(leaf.NotAfter):
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
	return append([]string{text}, a.Explain(presented, "", refusal, at)...)
}

// ifSuitable describes which clients a certificate would identify if it were suitable
// for client authentication.
func (a *Authenticator) ifSuitable(leaf *x509.Certificate, now time.Time) []string {
	var texts []string
	for _, pin := range a.config.Registry.Pins(leaf, sha256.Sum256(leaf.Raw)) {
		if pin.Ended(now) {
			texts = append(texts, endedText(pin))
			continue
		}
		texts = append(texts, fmt.Sprintf("otherwise it would be client '%s', by the %s '%s'", pin.Client.ID, pin.Kind, pin.Value))
	}
	names, noSVID := a.config.Registry.Names(leaf)
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
func (a *Authenticator) declares(leaf *x509.Certificate, clientID string) []string {
	client := a.config.Registry.Client(clientID)
	if client == nil {
		return []string{fmt.Sprintf("the realm has no client %.200q", clientID)}
	}
	var texts []string
	for _, cred := range client.Credentials {
		texts = append(texts, fmt.Sprintf("client '%s' declares the %s '%s'%s", client.ID, cred.Kind, cred.Value, cred.Difference(leaf)))
	}
	for _, cred := range a.config.Registry.Listed(client) {
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
