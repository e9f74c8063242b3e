package validators

import (
	"crypto/x509"
	"net/netip"
	"strconv"
)

// maxShownText bounds the text of a [ShownName] in bytes, before it is escaped.
const maxShownText = 300

// ShownName is a subject alternative name for display.
type ShownName struct {
	// Kind is empty for a kind that cannot be declared.
	Kind NameKind
	// Text is what the certificate says, escaped to printable characters and cut
	// at 300 bytes.
	Text string
	// Name is the zero value if no declared name matches it.
	Name Name
}

// ShowNames returns every subject alternative name of a certificate, including those
// that match no declared name. It returns the same errors as [NamesOf].
func ShowNames(cert *x509.Certificate) ([]ShownName, error) {
	general, err := generalNames(cert)
	if err != nil {
		return nil, err
	}
	kinds := map[int]NameKind{rfc822Name: NameEmail, dNSName: NameDNS, uniformResourceIdentifier: NameURI, iPAddress: NameIP}
	shown := make([]ShownName, len(general))
	for i, raw := range general {
		shown[i] = ShownName{Kind: kinds[raw.Tag], Text: string(raw.Bytes)}
		if address, ok := netip.AddrFromSlice(raw.Bytes); ok && raw.Tag == iPAddress {
			shown[i].Text = address.String()
		}
		shown[i].Text = escape(shown[i].Text)
		if name, ok := presentedName(raw); ok {
			shown[i].Name = name
		}
	}
	return shown, nil
}

// escape returns text from a certificate as one line of printable characters.
func escape(text string) string {
	cut := text[:min(len(text), maxShownText)]
	quoted := strconv.Quote(cut)
	quoted = quoted[1 : len(quoted)-1]
	if len(cut) < len(text) {
		return quoted + "…"
	}
	return quoted
}
