package authn

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// maxHintBytes bounds the hint in a log line.
	maxHintBytes = 4 << 10
	// maxNearName is how much of an alternative name is shown.
	maxNearName = 200
	// maxPresentedPins is how many presented certificates are compared with the
	// pins.
	maxPresentedPins = 8
	// maxNearPins is how many matching pins that do not count are reported.
	maxNearPins = 4
	// maxNearNames is how many alternative names are reported.
	maxNearNames = 4
)

// onlyWithChain says what the names of a client count with.
func onlyWithChain(client *clients.Client) string {
	if len(client.IssuedBy) > 0 {
		return "', but it counts only with a verified chain that meets issued_by"
	}
	return "', but it counts only with a verified chain"
}

// chainSettings names the settings of a client that require a chain for a pin.
func chainSettings(client *clients.Client) string {
	switch {
	case len(client.IssuedBy) == 0:
		return "require_chain"
	case client.RequireChain:
		return "require_chain and issued_by"
	}
	return "issued_by"
}

// refusedChain is a presented chain, leaf first, that was refused. It finds out what
// operators are told about it. That does not belong on the request path, because the
// time it takes depends on which clients are registered.
type refusedChain struct {
	registry  *clients.Registry
	trust     *validators.TrustPool // nil without one
	presented []*x509.Certificate
	refusal   *validators.Refusal
	now       time.Time
}

// hint returns what the certificate comes close to, as one text of at most 4 KiB for
// the log line, or "".
func (r *refusedChain) hint() string {
	misses := r.nearMisses()
	size, fit := 0, 0
	for ; fit < len(misses) && size+len(misses[fit])+2 <= maxHintBytes+2; fit++ {
		size += len(misses[fit]) + 2
	}
	return strings.Join(misses[:fit], "; ")
}

// nearMisses returns sentences about what the certificate comes close to.
func (r *refusedChain) nearMisses() []string {
	if len(r.presented) == 0 || r.refusal.Reason != validators.CertificateUnknown && r.refusal.Reason != validators.CertificateUntrusted {
		return nil
	}
	leaf := r.presented[0]
	misses := r.nearPins(leaf)
	itsOwnIssuer := r.refusal.Reason == validators.CertificateUntrusted && selfIssued(leaf) && len(misses) == 0
	if miss := r.nearPresented(); miss != "" {
		misses = append(misses, miss)
	}
	if r.registry.HasPKI() {
		misses = append(misses, r.nearNames(leaf)...)
		if itsOwnIssuer {
			misses = append(misses, "it names itself as its issuer, as self-signed certificates do; register such a client by thumbprint, not by name")
		}
	}
	if client := r.registry.Client(leaf.Subject.CommonName); client != nil && !strings.Contains(strings.Join(misses, " "), "client '"+client.ID+"'") {
		misses = append(misses, "its common name is the ID of client '"+client.ID+"', which declares other credentials; if it is the new certificate of this client, add its thumbprint to the client")
	}
	return misses
}

// selfIssued reports whether a certificate names itself as its issuer. A client's
// certificate is then self-signed, unless its CA has the same name.
func selfIssued(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }

// registrable reports whether registering the certificate by its thumbprint would help.
func (r *refusedChain) registrable() bool {
	leaf, reason := r.presented[0], r.refusal.Reason
	return reason == validators.CertificateUnknown ||
		reason == validators.CertificateUntrusted && selfIssued(leaf) && len(r.registry.Pins(leaf, sha256.Sum256(leaf.Raw))) == 0
}

// nearPins compares the leaf with the pins: those that match but do not count,
// and those that are the hash of another part of it.
func (r *refusedChain) nearPins(leaf *x509.Certificate) (misses []string) {
	certificate, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for _, pin := range r.registry.Pins(leaf, certificate) {
		// the detail says it already where nothing else stood in the way
		said, text := "", ""
		switch {
		case len(misses) == maxNearPins:
		case pin.Ended(r.now):
			text = endedText(pin)
			said = text
		case pin.NeedsChain():
			said = fmt.Sprintf("client '%s' matches by its %s, ", pin.Client.ID, pin.Kind)
			text = said + "but it has " + chainSettings(pin.Client) + ", which the chain does not meet"
		}
		if text != "" && !strings.HasPrefix(r.refusal.Detail, said) {
			misses = append(misses, text)
		}
	}
	if cred, _ := r.registry.DeclaredHash(key); cred != nil {
		misses = append(misses, fmt.Sprintf("the thumbprint that client '%s' declares is the hash of this certificate's public key; declare it as public_key", cred.Client.ID))
	}
	if _, cred := r.registry.DeclaredHash(certificate); cred != nil {
		misses = append(misses, fmt.Sprintf("the public_key that client '%s' declares is the thumbprint of this certificate; declare it as thumbprint", cred.Client.ID))
	}
	if cred := r.registry.CertificateWithKey(key); cred != nil && cred.Value != validators.ThumbprintOf(leaf.Raw).String() {
		text := "the certificate file of client '%s' has the same key but a different certificate, as after a renewal; name the new file, or declare public_key \"%x\""
		if cred.Kind == clients.KindJWKS {
			text = "the JWKS of client '%s' lists a different certificate with the same key, as before a renewal; have its owner add the new one, or declare public_key \"%x\""
		}
		misses = append(misses, fmt.Sprintf(text, cred.Client.ID, key))
	}
	return misses
}

// nearPresented looks for a pin of a certificate that was sent after the leaf.
func (r *refusedChain) nearPresented() string {
	for i, cert := range r.presented[:min(len(r.presented), 1+maxPresentedPins)] {
		if bytes.Equal(cert.Raw, r.presented[0].Raw) {
			continue
		}
		pin, _ := r.registry.DeclaredHash(sha256.Sum256(cert.Raw))
		if pin == nil {
			_, pin = r.registry.DeclaredHash(sha256.Sum256(cert.RawSubjectPublicKeyInfo))
		}
		if pin != nil {
			return fmt.Sprintf("the %s of client '%s' is that of certificate %d in the presented chain, but only the first is compared; pin that one, or declare its subject with the CA in trust_pool",
				pin.Kind, pin.Client.ID, i+1)
		}
	}
	return ""
}

// nearNames compares the names of the leaf with those declared, as if the chain
// did not matter.
func (r *refusedChain) nearNames(leaf *x509.Certificate) (misses []string) {
	var names []validators.Name
	var namesErr error
	if r.registry.HasNames() {
		names, namesErr = validators.NamesOf(leaf)
	}
	var declared []string
	matches, notSVID := r.registry.Names(leaf)
	for _, match := range matches {
		switch {
		case match.Kind == clients.KindSubject || len(declared) == maxNearNames:
		case match.Kind == clients.KindSANURI && match.Matched != match.Value:
			declared = append(declared, fmt.Sprintf("the %s '%.*s' fits '%.*s' of client '%s%s", match.Kind, maxNearName, match.Matched, maxNearName, match.Value, match.Client.ID, onlyWithChain(match.Client)))
		default:
			declared = append(declared, fmt.Sprintf("the %s '%.*s' is declared by client '%s%s", match.Kind, maxNearName, match.Matched, match.Client.ID, onlyWithChain(match.Client)))
		}
	}
	if notSVID != nil {
		declared = append(declared, "a client declares its SPIFFE ID, but "+notSVID.Detail)
	}

	subject, known := r.nearSubject(leaf)
	nameless := len(names) == 0
	if known || len(declared) == 0 && (nameless || len(leaf.Subject.Names) > 0) {
		misses = append(misses, subject)
	}
	if len(declared) == 0 && !known && !nameless {
		misses = append(misses, "no client declares any of the certificate's alternative names")
	}
	misses = append(misses, declared...)
	if namesErr != nil {
		misses = append(misses, "the alternative names cannot match any client: "+namesErr.Error())
	}
	return misses
}

// nearSubject reports which client declares the subject, in this order or in
// reverse, or that none does.
func (r *refusedChain) nearSubject(leaf *x509.Certificate) (text string, known bool) {
	subject, err := dn.FromRaw(leaf.RawSubject)
	if err != nil {
		return "the subject cannot match any client: " + err.Error(), false
	}
	if same := r.registry.Subject(subject.Key()); len(same) > 0 {
		return "the subject is declared by client '" + same[0].Client.ID + onlyWithChain(same[0].Client), true
	}
	shown := dn.Format(leaf.RawSubject)
	if reversed := r.registry.Subject(subject.Reversed().Key()); len(reversed) > 0 {
		return "client '" + reversed[0].Client.ID + "' declares the subject in reverse order; declare it as '" + shown + "' if this is the client", true
	}
	text = "no client declares the subject '" + shown + "', in this order or in reverse"
	if near := r.registry.NearSubject(shown); near != nil {
		text += fmt.Sprintf("; client '%s' declares '%s', which differs in few letters", near.Client.ID, near.Value)
	}
	return text, false
}
