package authn

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// maxHintBytes bounds the hint in a log line.
	maxHintBytes = 4 << 10
	// maxNearName is how much of an alternative name is shown.
	maxNearName = 200
	// maxPresentedPins is how many presented certificates are held against the
	// pins.
	maxPresentedPins = 8
	// maxNearPins is how many pins that fit and do not count are told of.
	maxNearPins = 4
	// maxExplained bounds what is said of one certificate.
	maxExplained = 16

	onlyWithChain = "', but it counts only with a chain that verifies and meets issued_by"
)

// nobody stands in where no credential was found, so that the sentence is
// written all the same.
var nobody = &clients.Credential{Client: &clients.Client{ID: "nobody-in-particular"}, Kind: clients.KindThumbprint}

// Hint returns the near misses of a refusal in one text for its log line, or "".
func (a *Authenticator) Hint(presented []*x509.Certificate, refusal *validators.Refusal) string {
	misses := a.nearMisses(presented, refusal, a.now())
	if len(misses) == 0 {
		return ""
	}
	var text strings.Builder
	text.Grow(maxHintBytes) // in every case, so that it takes the same
	for i, miss := range misses {
		if text.Len()+len(miss)+2 > maxHintBytes {
			break
		}
		if i > 0 {
			text.WriteString("; ")
		}
		text.WriteString(miss)
	}
	return text.String()
}

// nearMisses are sentences about what a refused certificate comes close to.
//
// A stranger who presents any name and any CA certificate he likes waits for
// this. So of what is compared with the names and with the certificates that
// follow the leaf, the sentence is written whether or not there is a client to
// name in it. What is compared with the leaf's hash and key only somebody can
// try who has that key.
func (a *Authenticator) nearMisses(presented []*x509.Certificate, refusal *validators.Refusal, now time.Time) []string {
	if len(presented) == 0 || refusal.Reason != validators.CertificateUnknown && refusal.Reason != validators.CertificateUntrusted {
		return nil
	}
	misses := make([]string, 0, 16)
	itsOwnIssuer := refusal.Reason == validators.CertificateUntrusted && selfIssued(presented[0])
	if a.registry.HasPins() {
		misses = a.nearPins(misses, presented[0], refusal, now)
		itsOwnIssuer = itsOwnIssuer && len(misses) == 0
		if len(presented) > 1 {
			misses = a.nearPresented(misses, presented)
		}
	}
	if a.registry.HasPKI() {
		misses = a.nearNames(misses, presented[0])
	}
	if itsOwnIssuer && a.registry.HasPKI() {
		misses = append(misses, "it names itself as its issuer, as self-signed certificates do; such a client is registered by thumbprint, not by name")
	}
	return misses
}

// selfIssued reports whether a certificate names itself as its issuer. That of a
// client is then self-signed, unless its CA has the same name.
func selfIssued(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }

// Registrable reports whether to register a refused certificate by its
// thumbprint would help.
func (a *Authenticator) Registrable(leaf *x509.Certificate, reason validators.Reason) bool {
	return reason == validators.CertificateUnknown ||
		reason == validators.CertificateUntrusted && selfIssued(leaf) && len(a.registry.Pins(leaf, sha256.Sum256(leaf.Raw))) == 0
}

// nearPins compares the leaf with the pins: those that fit and do not count,
// and those that are the hash of something else of it.
func (a *Authenticator) nearPins(misses []string, leaf *x509.Certificate, refusal *validators.Refusal, now time.Time) []string {
	certificate, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for _, pin := range a.registry.Pins(leaf, certificate) {
		// the detail says it already where nothing else stood in the way
		said, text := "", ""
		switch {
		case len(misses) == maxNearPins:
		case pin.Ended(now):
			text = endedText(pin)
			said = text
		case needsChain(pin):
			said = fmt.Sprintf("client '%s' fits by its %s, ", pin.Client.ID, pin.Kind)
			text = said + "but it has require_chain or issued_by, which the chain does not meet"
		}
		if text != "" && !strings.HasPrefix(refusal.Detail, said) {
			misses = append(misses, text)
		}
	}
	if cred, _ := a.registry.DeclaredHash(key); cred != nil {
		misses = append(misses, fmt.Sprintf("the thumbprint that client '%s' declares is the hash of this certificate's public key; declare it as public_key", cred.Client.ID))
	}
	if _, cred := a.registry.DeclaredHash(certificate); cred != nil {
		misses = append(misses, fmt.Sprintf("the public_key that client '%s' declares is the thumbprint of this certificate; declare it as thumbprint", cred.Client.ID))
	}
	if cred := a.registry.CertificateWithKey(key); cred != nil && cred.Value != validators.ThumbprintOf(leaf.Raw).String() {
		text := "the certificate file of client '%s' has the same key but is another certificate, as after a renewal; name the new file, or declare public_key \"%x\""
		if cred.Kind == clients.KindJWKS {
			text = "the JWKS of client '%s' lists another certificate of the same key, as before a renewal; its owner adds the new one to it, or declare public_key \"%x\""
		}
		misses = append(misses, fmt.Sprintf(text, cred.Client.ID, key))
	}
	return misses
}

// nearPresented looks for a pin of a certificate that was sent after the leaf.
func (a *Authenticator) nearPresented(misses []string, presented []*x509.Certificate) []string {
	var found *clients.Credential
	position := 0
	for i, cert := range presented {
		if i == 0 || i > maxPresentedPins || bytes.Equal(cert.Raw, presented[0].Raw) {
			continue
		}
		byCertificate, _ := a.registry.DeclaredHash(sha256.Sum256(cert.Raw))
		_, byKey := a.registry.DeclaredHash(sha256.Sum256(cert.RawSubjectPublicKeyInfo))
		if byCertificate == nil {
			byCertificate = byKey
		}
		if found == nil {
			found, position = byCertificate, i+1
		}
	}
	cred := found
	if cred == nil {
		cred, position = nobody, 0
	}
	text := "the " + string(cred.Kind) + " of client '" + cred.Client.ID + "' is that of certificate " + strconv.Itoa(position) +
		" of those presented, but only the first is compared; pin that one, or declare its subject with the CA in trust_pool"
	if found == nil {
		return misses
	}
	return append(misses, text)
}

// nearNames compares the names of the leaf with those declared, as if the chain
// did not matter.
func (a *Authenticator) nearNames(misses []string, leaf *x509.Certificate) []string {
	var names validators.PresentedNames
	var namesErr error
	if a.registry.HasNames() {
		names, namesErr = validators.NamesOf(leaf)
	}
	var declared *clients.Credential
	var name validators.Name
	for presented := range names.All() {
		cred := a.registry.DeclaredName(presented)
		if declared == nil {
			declared, name = cred, presented
		}
	}
	byName, shown := declared, name.String()
	if byName == nil {
		byName = nobody
	}
	nameText := "the " + string(byName.Kind) + " '" + shown[:min(len(shown), maxNearName)] + "' is that of client '" + byName.Client.ID + onlyWithChain

	subjectText, known := a.nearSubject(leaf)
	nameless := names.Len() == 0
	if known || declared == nil && (nameless || len(leaf.Subject.Names) > 0) {
		misses = append(misses, subjectText)
	}
	switch {
	case declared != nil:
		misses = append(misses, nameText)
	case !known && !nameless:
		misses = append(misses, "no client declares one of the certificate's alternative names literally")
	}
	if namesErr != nil {
		misses = append(misses, "the alternative names can match no client: "+namesErr.Error())
	}
	return misses
}

// nearSubject tells which client declares the subject, in this order or in
// reverse, or that none does.
func (a *Authenticator) nearSubject(leaf *x509.Certificate) (text string, known bool) {
	dn, err := validators.DNFromRaw(leaf.RawSubject)
	if err != nil {
		return "the subject can match no client: " + err.Error(), false
	}
	same, reversed := a.registry.Subject(dn.Key()), a.registry.Subject(dn.ReversedKey())
	// written out, and joined to one other text, in every case
	subject := validators.FormatDN(leaf.RawSubject)
	switch {
	case len(same) > 0:
		return "the subject is that of client '" + same[0].Client.ID + onlyWithChain, true
	case len(reversed) > 0:
		return "the subject is that of client '" + reversed[0].Client.ID + "' in reverse order; declare it as '" + subject + "' if this is the client", true
	}
	return "no client declares the subject '" + subject + "', neither in this order nor in reverse", false
}
