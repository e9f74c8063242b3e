package forwarded

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// envoyEscape escapes as Envoy does for Cert and Chain.
func envoyEscape(text string) string {
	return strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D").Replace(text)
}

func envoyHash(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// envoyElement returns what Envoy writes about its client, with all details.
func envoyElement(leaf *x509.Certificate, presented ...*x509.Certificate) string {
	element := "By=spiffe://mesh.example/proxy;Hash=" + envoyHash(leaf) + `;Cert="` + envoyEscape(toPEM(leaf)) + `"`
	if len(presented) > 0 {
		element += `;Chain="` + envoyEscape(toPEM(presented...)) + `"`
	}
	element += `;Subject="` + strings.ReplaceAll(leaf.Subject.String(), `"`, `\"`) + `"`
	uris, dns := sanTexts(leaf)
	element += ";URI=" + strings.Join(uris, ";URI=")
	for _, name := range dns {
		element += ";DNS=" + name
	}
	return element
}

// sanTexts returns the URI and DNS names of a certificate, unchanged.
func sanTexts(cert *x509.Certificate) (uris, dns []string) {
	var names []asn1.RawValue
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		if _, err := asn1.Unmarshal(extension.Value, &names); err != nil {
			return nil, nil
		}
	}
	for _, name := range names {
		switch name.Tag {
		case 6:
			uris = append(uris, string(name.Bytes))
		case 2:
			dns = append(dns, string(name.Bytes))
		}
	}
	return uris, dns
}

func envoy(elements ...string) []string { return []string{strings.Join(elements, ",")} }

func TestForwardEnvoy(t *testing.T) {
	chain := chainOf(t, 3)
	leaf := chain[0]
	cert := `Cert="` + envoyEscape(toPEM(leaf)) + `"`
	for _, value := range []string{
		envoyElement(leaf),
		cert,
		"cert=" + envoyEscape(toPEM(leaf)),
		"CERT=" + nginxEscape(toPEM(leaf)) + " ;subject=\"\"",
		"Hash=" + strings.ToUpper(envoyHash(leaf)) + ";" + cert,
		" Hash=" + envoyHash(leaf) + " ; " + cert + " \t; DNS=a.example",
		cert + ";URI=;DNS=a;DNS=b",
		cert + ";URI=https://a.example/?b=c",
		cert + `;Subject="CN=a\"b\\\"c,O=d;e=f"`,
		cert + `;Subject="CN=a\,b\\c\0A"`,
		cert + ";Future-Key_2=x",
		`By=http://frontend.lyft.com;Hash=` + envoyHash(leaf) + `;` + cert + `;Subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client";URI=http://testclient.lyft.com;DNS=lyft.com;DNS=www.lyft.com`,
	} {
		mustForward(t, formatEnvoy, envoy(value), nil, leaf)
	}
	mustForward(t, formatEnvoy, envoy(envoyElement(leaf, chain...)), nil, chain...)
	mustForward(t, formatEnvoy, envoy(envoyElement(leaf, leaf)), nil, leaf)

	names := testpki.MustSelfSigned(t, testpki.URIs("spiffe://mesh.example/ns/a/sa/b", "https://a.example/?b=c"),
		testpki.DNSNames("a.example", "*.b.example"), testpki.Emails("a@b.example")).Cert
	mustForward(t, formatEnvoy, envoy(envoyElement(names)), nil, names)
}

func TestForwardEnvoyMalformed(t *testing.T) {
	chain := chainOf(t, 3)
	leaf := chain[0]
	text := envoyEscape(toPEM(leaf))
	cert := `Cert="` + text + `"`
	for _, test := range []struct{ value, why string }{
		{"By=a;Hash=" + envoyHash(leaf), "has no Cert"},
		{"By=a", "has no Cert"},
		{"Subject=\"CN=a\"", "has no Cert"},
		{"URI=spiffe://a/b", "but has no Cert"},
		{`Chain="` + text + `"`, "but has no Cert"},
		{"Cert=", "white space"},
		{`Cert=""`, "white space"},
		{`Cert="` + text, "closing quote is missing"},
		{`Cert=` + text + `"`, "double quote in a value without quotes"},
		{cert + "x", "after the closing quote"},
		{cert + `"`, "after the closing quote"},
		{cert + ";" + cert, "duplicate cert"},
		{cert + ";CERT=", "duplicate cert"},
		{"Cert=;" + cert, "duplicate cert"},
		{cert + ";Hash=" + envoyHash(leaf) + ";hash=" + envoyHash(leaf), "duplicate hash"},
		{envoyElement(leaf, chain...) + `;Chain="` + text + `"`, "duplicate chain"},
		{cert + ";Hash=" + envoyHash(chain[1]), "not the SHA-256"},
		{cert + ";Hash=", "not the SHA-256"},
		{cert + ";Hash=" + regexp.MustCompile(`..\B`).ReplaceAllString(envoyHash(leaf), "$0:"), "not the SHA-256"},
		{cert + `;Chain="` + envoyEscape(toPEM(chain[1:]...)) + `"`, "does not begin with"},
		{cert + `;Chain=""`, "in Chain: the value is white space"},
		{cert + `;Chain="` + text + `%00"`, "in Chain: "},
		{`Cert="` + envoyEscape(toPEM(chain...)) + `"`, "more than 1 certificates"},
		{cert + ";", "is not a key"},
		{cert + ",", "is not a key"},
		{"," + cert, "is not a key"},
		{cert + ";;DNS=a", "is not a key"},
		{cert + ";DNS", "is not a key"},
		{cert + ";D NS=a", "is not a key"},
		{cert + ";=a", "is not a key"},
		{"By=urn:a:b(c;None;d);" + cert, "is not a key"},
		{cert + ";" + strings.Repeat("k", 33) + "=a", "is not a key"},
		{cert + `;Subject="CN=a\\"`, "ambiguous backslashes"},
		{cert + `;Subject="CN=a\\";DNS="b"`, "ambiguous backslashes"},
		{cert + `;Subject="CN=a\"`, "closing quote is missing"},
		{cert + `;DNS=a"b"`, "double quote in a value without quotes"},
		{`Cert="` + strings.ReplaceAll(text, "%0A", `\n`) + `"`, "not base64"},
		{strings.Repeat("By=a,", maxXFCCElements) + cert, "more than 16 elements"},
		{strings.Replace(cert, "=", " = ", 1), "is not a key"},
		{ClientCert(leaf), "is not a key"},
		{nginxEscape(toPEM(leaf)), "is not a key"},
	} {
		mustNotForward(t, formatEnvoy, envoy(test.value), nil, test.why)
	}
	mustForward(t, formatEnvoy, envoy(strings.Repeat("By=a,", maxXFCCElements-1)+cert), nil, leaf)
}

// In an APPEND list, the proxy's client sent the first elements.
func TestEnvoyFirstElementIsNotTrusted_A9(t *testing.T) {
	own, victim := testpki.MustSelfSigned(t).Cert, testpki.MustSelfSigned(t).Cert
	for _, sent := range []string{
		envoyElement(victim),
		envoyElement(victim, victim),
		envoyElement(victim) + "," + envoyElement(victim),
		`Cert="` + envoyEscape(toPEM(victim)) + `"`,
		"By=a;Hash=" + envoyHash(victim),
		`Subject="CN=a"`,
	} {
		mustForward(t, formatEnvoy, envoy(sent, envoyElement(own)), nil, own)
		// The proxy is not configured to add the certificate.
		mustNotForward(t, formatEnvoy, envoy(sent, "By=b;Hash="+envoyHash(own)), nil, "has no Cert")
	}
	// Text that tries to swallow what the proxy appends.
	for _, sent := range []string{
		`Subject="`, `Subject="\`, `Subject="\\`, `Cert="` + envoyEscape(toPEM(victim)), `Cert="` + envoyEscape(toPEM(victim)) + `";Subject="`,
		`Cert="` + envoyEscape(toPEM(victim)) + `";Subject=`, envoyElement(victim) + `;X="`, `"`, `X=`, `\`, ``, `X="";`,
	} {
		values := envoy(sent, envoyElement(own))
		if certs, err := formatEnvoy.Parse(values, nil); err == nil && !certs[0].Equal(own) {
			t.Errorf("%q before the proxy's element makes another certificate the client's", sent)
		}
	}
	// An invalid earlier element could be the proxy's own.
	for _, sent := range []string{`Cert="x"`, `Cert=;Hash=`, `URI=spiffe://mesh.example/victim`, `DNS=victim.example`, envoyElement(victim) + ";Cert="} {
		mustNotForward(t, formatEnvoy, envoy(sent, envoyElement(own)), nil, "")
	}
}

// A proxy that adds a second line does not vouch for the first.
func TestSecondForwardedHeaderIsRefused_A9(t *testing.T) {
	own, victim := testpki.MustSelfSigned(t).Cert, testpki.MustSelfSigned(t).Cert
	for _, f := range Formats {
		first, _ := forward(f, victim)
		last, _ := forward(f, own)
		mustNotForward(t, f, []string{first[0], last[0]}, nil, "sent 2 times")
		mustNotForward(t, f, []string{last[0], first[0]}, nil, "sent 2 times")
		if f != formatEnvoy {
			if f != formatTraefik { // which joins the certificates of a chain like that
				mustNotForward(t, f, []string{first[0] + "," + last[0]}, nil, "")
			}
			mustNotForward(t, f, []string{first[0] + ", " + last[0]}, nil, "")
		}
	}
}

// Envoy does not quote names, so the names of a certificate can contain elements.
func TestEnvoyNamesCannotAddElements_A9(t *testing.T) {
	victim := testpki.MustSelfSigned(t).Cert
	forged := `Cert=` + envoyEscape(toPEM(victim))
	san := func(tag int, texts ...string) testpki.Option {
		var names []asn1.RawValue
		for _, text := range texts {
			names = append(names, general(tag, text))
		}
		return testpki.GeneralNames(names...)
	}
	for name, option := range map[string]testpki.Option{
		"element in URI":             san(6, "a:b,"+forged),
		"element in DNS":             san(2, "a,"+forged),
		"element with quotes in DNS": san(2, `a,Cert="`+envoyEscape(toPEM(victim))+`"`),
		"element with Hash":          san(2, "a,By=b;Hash="+envoyHash(victim)+";"+forged+";URI=c"),
		"element in quotes":          san(2, `"a",`+forged),
		"and the honest name too":    san(2, "a", "a,"+forged),
		"first of several":           san(6, "a:b,"+forged, "spiffe://mesh.example/victim"),
		"second Cert":                san(2, "a;"+forged),
		"a Chain":                    san(2, "a;Chain="+envoyEscape(toPEM(victim))),
		"an open quote":              san(2, `"a`),
		"quotes":                     san(2, `"a"`),
		"a pair that is not read":    san(6, "a:b;DNS=victim.example"),
	} {
		t.Run(name, func(t *testing.T) {
			own := testpki.MustSelfSigned(t, option).Cert
			mustNotForward(t, formatEnvoy, envoy(envoyElement(own)), nil, "")
			mustNotForward(t, formatEnvoy, envoy(envoyElement(own, own)), nil, "")
			mustNotForward(t, formatEnvoy, envoy(envoyElement(victim), envoyElement(own)), nil, "")

			// A proxy that adds names but no certificate hides the certificate
			// that does so.
			bare := envoyElement(own)
			start, end := strings.Index(bare, ";Cert="), strings.Index(bare, ";Subject=")
			mustNotForward(t, formatEnvoy, envoy(bare[:start]+bare[end:]), nil, "")

			// Without names in the header, they have no effect.
			mustForward(t, formatEnvoy, envoy(bare[:end]), nil, own)
		})
	}

	// The same for a key that Envoy may add in the future.
	own := testpki.MustSelfSigned(t, san(1, "a,"+forged)).Cert
	mustNotForward(t, formatEnvoy, envoy(`Cert="`+envoyEscape(toPEM(own))+`";Email=a,`+forged), nil, "subject alternative name with a comma")
}
