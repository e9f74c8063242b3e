package validators

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// minRSABits is the size of the smallest RSA key that Go verifies signatures with.
const minRSABits = 1024

// maxComparedName bounds the names of issuers that are shown and looked for, in octets.
// A stranger chooses how long they are.
const maxComparedName = 512

const unknownAuthority = "certificate signed by unknown authority"

// CheckCA returns why no client certificate can verify under a CA of a trust pool, or
// nil: the CA is outside its validity period, or may not issue client certificates, or
// has a key or an extension that Go cannot handle. It may still issue certificates that
// do not verify.
func CheckCA(ca *x509.Certificate, now time.Time) error {
	if err := checkCAValidity(ca, now); err != nil {
		return err
	}
	if ca.Version == 3 && !ca.BasicConstraintsValid || ca.BasicConstraintsValid && !ca.IsCA {
		return errors.New("it is not a CA (basic constraints), so it cannot issue certificates; use the certificate of the CA")
	}
	if err := checkCA(ca); err != nil {
		return err
	}
	if unknown := ca.UnhandledCriticalExtensions; len(unknown) > 0 {
		if unknown[0].Equal(oidNameConstraints) {
			return errors.New("its critical name constraints restrict forms of names that cannot be enforced; use a CA without them")
		}
		return fmt.Errorf("it has the critical extension %s, which is unknown; use a CA without it", oidText(unknown[0]))
	}
	if !allowsClientAuth(ca) {
		return fmt.Errorf("its extended key usages are %s and not clientAuth; use a CA with clientAuth, or without extended key usages", usageNames(ca))
	}
	switch key := ca.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return fmt.Errorf("its RSA key has %d bits, which is too weak; use a CA with 2048 or more", key.N.BitLen())
		}
	default:
		return fmt.Errorf("it has a key of an unsupported kind (%s); use a CA with an RSA, ECDSA or Ed25519 key", ca.PublicKeyAlgorithm)
	}
	return nil
}

func checkCAValidity(ca *x509.Certificate, now time.Time) error {
	switch {
	case now.After(ca.NotAfter):
		return fmt.Errorf("it expired at %s; replace it with its renewal", ca.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(ca.NotBefore):
		return fmt.Errorf("it is not valid before %s; check the clocks, or wait", ca.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// failure is a verification that failed, with what is known about it.
type failure struct {
	pool      *TrustPool
	leaf      *x509.Certificate
	presented []*x509.Certificate
	// verified are the presented certificates that could be used; unusable, the others.
	verified []*x509.Certificate
	unusable []intermediate
	now      time.Time
}

// error returns why the leaf did not verify, and why presented certificates could not
// be used, in a text that is fit for a log line. The words of x509 do not reach it:
// they do not say which certificate is meant, nor what to do.
func (f *failure) error(err error) error {
	var text strings.Builder
	text.WriteString(f.why(f.leaf, err))
	if len(f.presented) > MaxIntermediates {
		fmt.Fprintf(&text, "; only the first %d of %d presented certificates were considered", MaxIntermediates, len(f.presented))
	}
	for _, c := range f.unusable {
		if text.Len() > maxChainErrorText {
			break // the rest would be cut off
		}
		fmt.Fprintf(&text, "; presented certificate %q: %s", shownName(c.cert), f.why(c.cert, c.err))
	}
	return errors.New(source.Text(text.String(), maxChainErrorText))
}

// why puts the error of verifying a certificate in words.
func (f *failure) why(cert *x509.Certificate, err error) string {
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return f.whyUnknown(cert, unknown)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return f.whyInvalid(cert, invalid)
	}
	if odd, ok := errors.AsType[*caError](err); ok {
		return f.about(cert, odd.ca) + odd.err.Error()
	}
	if _, unhandled := errors.AsType[x509.UnhandledCriticalExtension](err); unhandled {
		return f.whyUnusable(cert, err)
	}
	if strings.HasPrefix(err.Error(), "x509: signature check attempts limit") {
		return "more than 100 signatures would have to be verified; too many CAs have the name of its issuer"
	}
	return source.Plain(err, maxChainErrorText)
}

// whyInvalid explains an error about one certificate of a path.
func (f *failure) whyInvalid(cert *x509.Certificate, err x509.CertificateInvalidError) string {
	switch err.Reason {
	case x509.Expired:
		if e := checkCAValidity(err.Cert, f.now); e != nil {
			return f.about(cert, err.Cert) + e.Error()
		}
	case x509.TooManyIntermediates:
		return fmt.Sprintf("%sits path length constraint allows %d CAs below it, and there are more; have the certificate issued by a CA closer to it, or use one with a longer path", f.about(cert, err.Cert), err.Cert.MaxPathLen)
	case x509.CANotAuthorizedForThisName:
		return f.whyNotForName(cert, err)
	case x509.NoValidChains:
		return fmt.Sprintf("the certificate policies do not satisfy the policy constraints of the CAs above%s; have it issued with a policy that they allow", f.namesAbove(cert, hasPolicyConstraints))
	}
	return f.whyUnusable(cert, err)
}

// whyUnusable looks for the certificate on the way from cert to the pool that cannot be
// used.
func (f *failure) whyUnusable(cert *x509.Certificate, err error) string {
	suspects := f.above(cert)
	if cert != f.leaf {
		suspects = append([]*x509.Certificate{cert}, suspects...)
	} else if unknown := cert.UnhandledCriticalExtensions; len(unknown) > 0 {
		return fmt.Sprintf("the certificate has the critical extension %s, which is unknown; issue it without that", oidText(unknown[0]))
	}
	for _, ca := range suspects {
		if e := CheckCA(ca, f.now); e != nil {
			return f.about(cert, ca) + e.Error()
		}
	}
	if cert == f.leaf && !allowsClientAuth(cert) {
		return fmt.Sprintf("the certificate's extended key usages are %s and not clientAuth", usageNames(cert))
	}
	return "no path to the trust pool allows it: " + source.Plain(err, maxChainErrorText)
}

// whyNotForName explains a name that the constraints of a CA above do not allow.
func (f *failure) whyNotForName(cert *x509.Certificate, err x509.CertificateInvalidError) string {
	who := f.namesAbove(cert, func(ca *x509.Certificate) bool { return extension(ca, oidNameConstraints) != nil })
	if rest, found := strings.CutPrefix(err.Detail, "URI with "); found {
		what, _, _ := strings.Cut(rest, " ")
		if what == "empty" {
			what = "no host, as in urn:,"
		} else {
			what = "an address as its host"
		}
		return fmt.Sprintf("it has a URI with %s which cannot be compared with name constraints, of whatever kind, such as those above%s; have it issued without that URI, or by a CA without name constraints", what, who)
	}
	return fmt.Sprintf("the name constraints of the CAs above%s do not allow one of its names: %s; have it issued without that name, or by a CA that may issue it", who, source.Plain(errors.New(err.Detail), 2*maxShownName))
}

// whyUnknown explains that no CA issued the certificate which the error is about.
func (f *failure) whyUnknown(cert *x509.Certificate, unknown x509.UnknownAuthorityError) string {
	about := f.about(cert, unknown.Cert)
	cert = unknown.Cert
	namesakes := f.called(cert.RawIssuer)
	for _, ca := range namesakes {
		if err := CheckCA(ca, f.now); err != nil {
			return fmt.Sprintf("%s%s; %s%v", about, unknownAuthority, f.about(cert, ca), err)
		}
	}
	hinted := unknown.Error() != (x509.UnknownAuthorityError{}).Error() // by a CA that the pool does not disclose
	issuer := shownDN(cert.RawIssuer, 2*maxShownName)
	var why, where string
	if len(namesakes) == 0 && !hinted {
		where = f.spelledOtherwise(cert.RawIssuer)
	}
	switch {
	case (len(namesakes) > 0 || hinted) && isInsecure(cert.SignatureAlgorithm):
		why = fmt.Sprintf("it is signed with the insecure algorithm %s; have it reissued with SHA-256 or better", cert.SignatureAlgorithm)
	case (len(namesakes) > 0 || hinted) && cert.SignatureAlgorithm == x509.UnknownSignatureAlgorithm:
		why = "it is signed with an unsupported algorithm; have it reissued with RSA, ECDSA or Ed25519"
	case len(namesakes) > 0:
		why = fmt.Sprintf("it names %q as its issuer, but was not signed with the key of that CA; if the CA has another key, add its certificate too", issuer)
	case hinted:
		why = fmt.Sprintf("it names %q as its issuer, which is in the trust pool but did not issue it", issuer)
	case where != "":
		why = fmt.Sprintf("its issuer %q %s, but its name is written there with other ASN.1 string types, case or spaces, and must be the same octets; use a certificate of the CA that is written as the issuer is, or have this one reissued", issuer, where)
	case slices.ContainsFunc(f.presented, func(ca *x509.Certificate) bool { return ca != cert && bytes.Equal(ca.RawSubject, cert.RawIssuer) }):
		why = fmt.Sprintf("its issuer %q was sent after it, but cannot be used", issuer)
	case bytes.Equal(cert.RawIssuer, cert.RawSubject):
		why = "it is self-signed and not in the trust pool"
	default:
		why = fmt.Sprintf("its issuer is not in the trust pool, nor among the %d certificates that were sent after it: %q; have the client send it, or add it to the trust pool", len(f.presented), issuer)
	}
	return about + unknownAuthority + "; " + why
}

// called returns the CAs that could be used and have a name.
func (f *failure) called(rawSubject []byte) (cas []*x509.Certificate) {
	for _, known := range [][]*x509.Certificate{f.pool.anchors, f.verified} {
		for _, ca := range known {
			if bytes.Equal(ca.RawSubject, rawSubject) {
				cas = append(cas, ca)
			}
		}
	}
	return cas
}

// above returns the CAs that may be above a certificate, by their names.
func (f *failure) above(cert *x509.Certificate) (cas []*x509.Certificate) {
	for next := []*x509.Certificate{cert}; len(next) > 0; next = next[1:] {
		for _, ca := range f.called(next[0].RawIssuer) {
			if !slices.Contains(cas, ca) {
				cas, next = append(cas, ca), append(next, ca)
			}
		}
	}
	return cas
}

// namesAbove returns a list of the CAs above a certificate that have a property, in
// parentheses, or "".
func (f *failure) namesAbove(cert *x509.Certificate, has func(*x509.Certificate) bool) string {
	var names []string
	for _, ca := range f.above(cert) {
		if has(ca) && len(names) < 3 {
			names = append(names, strings.TrimSuffix(f.about(cert, ca), ": "))
		}
	}
	if names == nil {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// spelledOtherwise returns where a CA has an equal name of other octets, or "".
func (f *failure) spelledOtherwise(rawSubject []byte) string {
	if len(rawSubject) > maxComparedName {
		return ""
	}
	name, err := dn.FromRaw(rawSubject)
	if err != nil {
		return ""
	}
	if f.pool.names[name.Key()] {
		return "is in the trust pool"
	}
	for _, ca := range f.verified {
		if other, err := dn.FromRaw(ca.RawSubject); err == nil && other.Key() == name.Key() {
			return "was sent"
		}
	}
	return ""
}

// about returns the subject of a sentence about a certificate, in the explanation of
// another: its name and place, or nothing if it is the same.
func (f *failure) about(explained, cert *x509.Certificate) string {
	switch {
	case cert == explained:
		return ""
	case cert == f.leaf:
		return "the certificate: "
	case slices.ContainsFunc(f.verified, cert.Equal):
		return fmt.Sprintf("presented certificate %q: ", shownName(cert))
	}
	return fmt.Sprintf("CA %q of the trust pool: ", shownName(cert))
}

// shownName returns what a certificate is called in an error: its common name, or
// else its whole subject. The result is bounded but not escaped.
func shownName(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return syntax.FirstBytes(cert.Subject.CommonName, maxShownName)
	}
	return shownDN(cert.RawSubject, maxShownName)
}

// shownDN returns the first bytes of the text of a name.
func shownDN(raw []byte, most int) string {
	if len(raw) > maxComparedName {
		return fmt.Sprintf("a name of %d octets", len(raw))
	}
	return syntax.FirstBytes(dn.Format(raw), most)
}

func hasPolicyConstraints(ca *x509.Certificate) bool {
	return ca.RequireExplicitPolicy > 0 || ca.RequireExplicitPolicyZero
}

// isInsecure reports whether Go refuses a signature because of its algorithm.
func isInsecure(algorithm x509.SignatureAlgorithm) bool {
	switch algorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}
