package validators

import (
	"crypto/x509"
	"encoding/asn1"
	"iter"
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

// ShowNames yields every subject alternative name of a certificate, including those
// that match no declared name. It returns the same errors as [NamesOf]. Names that
// nobody takes are not formatted.
func ShowNames(cert *x509.Certificate) (iter.Seq[ShownName], error) {
	general, err := GeneralNames(cert)
	if err != nil {
		return nil, err
	}
	return func(yield func(ShownName) bool) {
		for _, raw := range general {
			if !yield(showName(raw)) {
				return
			}
		}
	}, nil
}

func showName(raw asn1.RawValue) ShownName {
	text := string(raw.Bytes[:min(len(raw.Bytes), maxShownText+1)])
	if address, ok := netip.AddrFromSlice(raw.Bytes); ok && raw.Tag == iPAddress {
		text = address.String()
	}
	shown := ShownName{Kind: shownKinds[raw.Tag], Text: escape(text)}
	if name, ok := presentedName(raw); ok {
		shown.Name = name
	}
	return shown
}

var shownKinds = map[int]NameKind{rfc822Name: NameEmail, dNSName: NameDNS, uniformResourceIdentifier: NameURI, iPAddress: NameIP}

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
