package mtlsauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
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

// hint is the near misses for the log line of a refusal.
func (a *authenticator) hint(presented []*x509.Certificate, refusal *validators.Refusal) string {
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
func (a *authenticator) nearMisses(presented []*x509.Certificate, refusal *validators.Refusal, now time.Time) []string {
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

// registrable reports whether to register a refused certificate by its
// thumbprint would help.
func (a *authenticator) registrable(leaf *x509.Certificate, reason validators.Reason) bool {
	return reason == validators.CertificateUnknown ||
		reason == validators.CertificateUntrusted && selfIssued(leaf) && len(a.registry.Pins(leaf, sha256.Sum256(leaf.Raw))) == 0
}

// nearPins compares the leaf with the pins: those that fit and do not count,
// and those that are the hash of something else of it.
func (a *authenticator) nearPins(misses []string, leaf *x509.Certificate, refusal *validators.Refusal, now time.Time) []string {
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
func (a *authenticator) nearPresented(misses []string, presented []*x509.Certificate) []string {
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
func (a *authenticator) nearNames(misses []string, leaf *x509.Certificate) []string {
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
func (a *authenticator) nearSubject(leaf *x509.Certificate) (text string, known bool) {
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

// explain is [authenticator.nearMisses] for an operator who asks about a
// certificate. He is no stranger, so it may tell what takes time: which client
// a certificate would be but for its validity or its usages, the patterns that
// a name fits, and what the client declares that was asked for.
func (a *authenticator) explain(presented []*x509.Certificate, clientID string, refusal *validators.Refusal, now time.Time) []string {
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
		names, _ := a.registry.Names(leaf)
		for _, name := range names {
			if name.Kind == clients.KindSANURI && name.Matched != name.Value {
				misses = append(misses, fmt.Sprintf("the %s '%.*s' fits '%.*s' of client '%s%s", name.Kind, maxNearName, name.Matched, maxNearName, name.Value, name.Client.ID, onlyWithChain))
			}
		}
		misses = append(misses, a.chainHas(presented, now)...)
	}
	if clientID != "" {
		misses = append(misses, a.declares(leaf, clientID)...)
	}
	// one certificate can lead to a client in several ways
	var distinct []string
	for _, miss := range misses {
		if !slices.Contains(distinct, miss) && len(distinct) < maxExplained {
			distinct = append(distinct, miss)
		}
	}
	return distinct
}

// chainHas tells of a chain that verifies what could stand in issued_by for it.
func (a *authenticator) chainHas(presented []*x509.Certificate, now time.Time) (texts []string) {
	if a.trust == nil {
		return nil
	}
	chains, err := a.trust.Verify(presented[0], presented[1:], now)
	if err != nil {
		return nil
	}
	for _, ca := range chains[0][1:] {
		texts = append(texts, fmt.Sprintf("the chain verifies, with the CA '%s': issued_by \"%x\"", validators.FormatDN(ca.RawSubject), sha256.Sum256(ca.RawSubjectPublicKeyInfo)))
	}
	return texts
}

// whenValid tells what a certificate is within its validity period, on the day
// that is nearest to now.
func (a *authenticator) whenValid(presented []*x509.Certificate, clientID string, now time.Time) []string {
	leaf, at := presented[0], now
	switch {
	case now.Before(leaf.NotBefore):
		at = leaf.NotBefore
	case now.After(leaf.NotAfter):
		at = leaf.NotAfter
	}
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		return []string{"the certificate ends before it begins, so it is never valid"}
	}
	v := a.examine(context.Background(), presented, at)
	refusal := v.refusal
	if refusal == nil {
		var match admission
		if match, refusal = choose(v.matches, clientID); refusal == nil {
			return []string{fmt.Sprintf("within its validity it is client '%s', by the %s '%s'", match.Client.ID, match.Kind, match.Matched)}
		}
	}
	text := "within its validity it would be refused too: " + refusal.Error()
	return append([]string{text}, a.explain(presented, "", refusal, at)...)
}

// ifSuitable tells which clients a certificate would be that is not made for
// client authentication.
func (a *authenticator) ifSuitable(leaf *x509.Certificate, now time.Time) []string {
	var texts []string
	for _, pin := range a.registry.Pins(leaf, sha256.Sum256(leaf.Raw)) {
		if pin.Ended(now) {
			texts = append(texts, endedText(pin))
			continue
		}
		texts = append(texts, fmt.Sprintf("but for that it would be client '%s', by the %s '%s'", pin.Client.ID, pin.Kind, pin.Value))
	}
	names, noSVID := a.registry.Names(leaf)
	for _, name := range names {
		texts = append(texts, fmt.Sprintf("but for that it would be client '%s', by the %s '%s', if its chain verifies", name.Client.ID, name.Kind, name.Matched))
	}
	if len(texts) == 0 && noSVID != nil {
		texts = append(texts, "but for that a client declares its SPIFFE ID")
	}
	if len(texts) == 0 {
		texts = append(texts, "but for that it would be no client either")
	}
	return texts
}

// declares tells how the client would be recognised that was asked for.
func (a *authenticator) declares(leaf *x509.Certificate, clientID string) []string {
	client := a.registry.Client(clientID)
	if client == nil {
		return []string{fmt.Sprintf("the realm has no client %.200q", clientID)}
	}
	var texts []string
	for _, cred := range client.Credentials {
		texts = append(texts, fmt.Sprintf("client '%s' declares the %s '%s'%s", client.ID, cred.Kind, cred.Value, cred.Difference(leaf)))
	}
	for _, cred := range a.registry.Listed(client) {
		texts = append(texts, fmt.Sprintf("the JWKS of client '%s' lists the certificate '%s'", client.ID, cred.Value))
	}
	return texts
}
