package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"sync/atomic"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// The bounds of log fields about a certificate, in octets of JSON, because a stranger
// chooses the certificate.
const (
	maxLoggedDN   = 384
	maxLoggedHint = 1 << 10
	// maxLoggedNames is how many alternative names are logged, and
	// maxLoggedName how much of each.
	maxLoggedNames = 8
	maxLoggedName  = 64
)

// LogText cuts text so that it has at most that many octets as a JSON string, without
// the quotes.
func LogText(text string, most int) string {
	const ellipsis = "…"
	size, fits := 0, 0
	for i := 0; i < len(text); {
		r, width := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t':
			size += 2
		case r < ' ' || r == utf8.RuneError && width == 1:
			size += len(`\u0000`)
		default:
			size += width
		}
		if size > most {
			return text[:fits] + ellipsis
		}
		if i += width; size+len(ellipsis) <= most {
			fits = i
		}
	}
	return text
}

// Notes keeps what operators are told about the certificates of a verdict, so that
// nothing is formatted for a request that repeats another. It may be used by several
// goroutines at once.
type Notes struct {
	// refusal is the one that the hints are about.
	refusal *validators.Refusal

	certificate atomic.Pointer[refusals.Certificate]
	hints       atomic.Pointer[notedHints]
	owner       atomic.Pointer[string] // "" for nobody
}

// Hints are what helps an operator to register a refused certificate.
type Hints struct {
	// Hint says what the certificate comes close to, Register is the client block that
	// would admit it. Both are "" if there is nothing to say.
	Hint, Register string
}

// notedHints are hints that an authenticator of this epoch has given.
type notedHints struct {
	epoch uint64
	Hints
}

// NewNotes returns empty notes, for certificates that an authenticator has not looked
// at.
func NewNotes(refusal *validators.Refusal) *Notes { return &Notes{refusal: refusal} }

// Made reports whether [Notes.Describe] needs no certificates any more for a refusal.
func (n *Notes) Made(by *Authenticator, refusal *validators.Refusal) bool {
	if n.certificate.Load() == nil {
		return false
	}
	hints := n.hints.Load()
	return by == nil || refusal != n.refusal || hints != nil && hints.epoch == by.epoch
}

// Describe describes the certificates, leaf first, of a request that was refused. by
// gives hints, nil for none. It should be the authenticator that decides now, so that
// the hints are about the clients as they are now. Hints do not belong on the request
// path, because the time that they take depends on which clients are registered.
func (n *Notes) Describe(by *Authenticator, presented []*x509.Certificate, refusal *validators.Refusal) (*refusals.Certificate, Hints) {
	certificate := n.certificate.Load()
	if certificate == nil {
		certificate = describe(presented[0])
		n.certificate.Store(certificate)
	}
	if by == nil || refusal != n.refusal {
		return certificate, Hints{}
	}
	hints := n.hints.Load()
	// the certificates may be gone since the hints were up to date
	if hints == nil || hints.epoch != by.epoch && len(presented) > 0 {
		hints = &notedHints{by.epoch, by.about(presented, refusal).hints()}
		n.hints.Store(hints)
	}
	return certificate, hints.Hints
}

// describe describes a certificate, escaped and bounded.
func describe(leaf *x509.Certificate) *refusals.Certificate {
	return &refusals.Certificate{
		Subject:    LogText(dn.Format(leaf.RawSubject), maxLoggedDN),
		Issuer:     LogText(dn.Format(leaf.RawIssuer), maxLoggedDN),
		Serial:     validators.FormatSerial(leaf.SerialNumber),
		Thumbprint: validators.ThumbprintOf(leaf.Raw).String(),
		PublicKey:  validators.ThumbprintOf(leaf.RawSubjectPublicKeyInfo).String(),
		Names:      loggedNames(leaf),
		NotBefore:  leaf.NotBefore.UTC(),
		NotAfter:   leaf.NotAfter.UTC(),
	}
}

// CertificateFields returns the log fields that name a certificate.
func CertificateFields(cert *refusals.Certificate) []zap.Field {
	return []zap.Field{
		zap.String("subject", cert.Subject), zap.String("issuer", cert.Issuer),
		zap.String("serial", cert.Serial), zap.String("thumbprint", cert.Thumbprint),
	}
}

// hints says what the certificate comes close to, and which client block would admit
// it if that would help. The block contains nothing from the certificate but its hash,
// because an operator may paste it.
func (r *refusedChain) hints() (hints Hints) {
	hints.Hint = LogText(r.hint(), maxLoggedHint)
	if r.registrable() {
		hints.Register = fmt.Sprintf("client \"CHANGE-ME\" {\n\tthumbprint %q\n}", validators.ThumbprintOf(r.presented[0].Raw))
	}
	return hints
}

// loggedNames returns the first alternative names of a certificate, as a client would
// declare them.
func loggedNames(cert *x509.Certificate) (names []string) {
	shown, err := validators.ShowNames(cert)
	if err != nil {
		return nil
	}
	for name := range shown {
		if name.Kind == "" {
			continue
		}
		if len(names) == maxLoggedNames {
			return append(names, "…")
		}
		names = append(names, string(name.Kind)+" "+LogText(name.Text, maxLoggedName))
	}
	return names
}

// Owner returns the client whose certificate was refused nevertheless, such as one that has
// expired, or "" if that is not certain. Nothing is decided by it. As with hints, by must
// be asked off the request path.
func (n *Notes) Owner(by *Authenticator, presented []*x509.Certificate, refusal *validators.Refusal) string {
	if by == nil {
		return ""
	}
	owner := n.owner.Load()
	if owner == nil && len(presented) > 0 {
		id := by.about(presented, refusal).owner()
		owner = &id
		n.owner.Store(owner)
	}
	if owner == nil || by.config.Registry.Client(*owner) == nil {
		return ""
	}
	return *owner
}

// owner returns the one client that has pinned the leaf, or that declares its name if the
// chain verified while the leaf was valid. A name alone says nothing: anybody can make a
// certificate with it.
func (r *refusedChain) owner() string {
	leaf := r.presented[0]
	var owners []*clients.Client
	for _, pin := range r.registry.Pins(leaf, sha256.Sum256(leaf.Raw)) {
		owners = append(owners, pin.Client)
	}
	if len(owners) == 0 {
		owners = r.named()
	}
	if len(owners) == 0 || slices.ContainsFunc(owners, func(client *clients.Client) bool { return client != owners[0] }) {
		return ""
	}
	return owners[0].ID
}

// named returns the clients that declare a name of the leaf, if the chain verifies.
func (r *refusedChain) named() (owners []*clients.Client) {
	switch r.refusal.Reason {
	case validators.CertificateExpired, validators.CertificateRevoked, validators.RevocationUnavailable,
		validators.ClientDisabled, validators.ClientMismatch:
	default:
		return nil // the chain or the name is what is wrong
	}
	leaf, at := r.presented[0], r.now
	names, _ := r.registry.Names(leaf)
	if len(names) == 0 {
		return nil
	}
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	chains, err := r.trust.Verify(leaf, r.presented[1:], at)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return validators.IssuedBy(chain, name.Client.IssuedBy) }) {
			owners = append(owners, name.Client)
		}
	}
	return owners
}
