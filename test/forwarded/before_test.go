package forwarded_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// beforePage is for APIs that have had another gateway in front of them. Each section
// has blocks that set the headers of that gateway.
const beforePage = "../../docs/what-your-api-read-before.md"

// beforeSection is a section of beforePage: what a gateway was configured with, if it
// can be run here, and the blocks to paste.
type beforeSection struct {
	title, before string
	here          []string
}

// beforeSections reads the sections that have blocks.
func beforeSections(t *testing.T) (sections []beforeSection) {
	t.Helper()
	for text := range strings.SplitSeq(readPage(t, beforePage), "\n## ") {
		title, text, _ := strings.Cut(text, "\n")
		section := beforeSection{title: title}
		for _, match := range regexp.MustCompile("(?ms)^```([a-z ]+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
			if strings.Contains(match[2], "mtls_auth") {
				section.here = append(section.here, match[2])
			} else {
				section.before = match[2]
			}
		}
		if len(section.here) > 0 {
			sections = append(sections, section)
		}
	}
	return sections
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// path returns where the API is that has a block of the page before it.
func (s beforeSection) path(block int) string {
	return fmt.Sprintf("/%s-%d", notWord.ReplaceAllString(strings.ToLower(s.title), "-"), block)
}

var (
	setsHeader    = regexp.MustCompile(`(?m)^\s*header_up (\S+) `)
	forwardsIn    = regexp.MustCompile(`(?m)^\s*forward_certificate (\S+)(?: \{\n\s*header (\S+))?`)
	settingBefore = regexp.MustCompile(`(?m)^\s*(?:proxy_set_header|http-request set-header|RequestHeader set|header_up) (\S+) "?(.+?)"?;?$`)
)

// headersOf returns the headers that a block sets.
func headersOf(t *testing.T, block string) (names []string) {
	t.Helper()
	for _, match := range setsHeader.FindAllStringSubmatch(block, -1) {
		names = append(names, match[1])
	}
	for _, match := range forwardsIn.FindAllStringSubmatch(block, -1) {
		name := match[2]
		if i := slices.IndexFunc(rig.Forwarders, func(f rig.Forwarder) bool { return f.Format == match[1] }); name == "" && i >= 0 {
			name = rig.Forwarders[i].Header
		}
		names = append(names, name)
	}
	if len(names) == 0 || slices.Contains(names, "") {
		t.Fatalf("it sets the headers %q:\n%s", names, block)
	}
	return names
}

// comparedCertificate is a certificate that is sent to both gateways. Its kind is what
// the page calls it, or "any".
type comparedCertificate struct {
	kind, clientID string
	leaf           *testpki.Leaf
}

const anyCertificate = "any"

// comparedCertificates returns certificates whose values are written in different ways.
func comparedCertificates(t *testing.T, r *rig.Rig) (compared []comparedCertificate) {
	t.Helper()
	oid := func(arcs ...int) asn1.ObjectIdentifier { return arcs }
	named := func(rdns ...pkix.RelativeDistinguishedNameSET) testpki.Option {
		der, err := asn1.Marshal(pkix.RDNSequence(rdns))
		if err != nil {
			t.Fatal(err)
		}
		return testpki.RawSubject(der)
	}
	add := func(kind string, options ...testpki.Option) {
		options = append(options, testpki.Validity(time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)))
		id := fmt.Sprintf("client-%d", len(compared))
		ca := r.CA
		if kind == "below an intermediate CA" {
			ca = testpki.MustIntermediate(t, ca)
		}
		leaf := r.IssueBy(ca, id, options...)
		if leaf.Cert.Subject.CommonName == "client" {
			id = "client-0" // one client with several certificates
		}
		compared = append(compared, comparedCertificate{kind, id, leaf})
	}
	cn, ou := oid(2, 5, 4, 3), oid(2, 5, 4, 11)
	company := func(name string) testpki.Option {
		return testpki.Subject(pkix.Name{Organization: []string{"Company"}, CommonName: name})
	}
	add(anyCertificate, company("client"), testpki.Serial(big.NewInt(0xabc)))
	add("RSA", company("client"), testpki.WithKeyType(testpki.RSA2048))
	add("below an intermediate CA", company("client"))
	long, _ := new(big.Int).SetString("ff0102030405060708090a0b0c0d0e0f10111213", 16)
	add("a serial number of 20 octets", company("client"), testpki.Serial(long))
	add("an e-mail address", named(
		pkix.RelativeDistinguishedNameSET{{Type: oid(1, 2, 840, 113549, 1, 9, 1), Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("a@b.example")}}},
		pkix.RelativeDistinguishedNameSET{{Type: cn, Value: "a"}}))
	add("commas and quotes", company(`#a, b=c;"d" <e> #`))
	add("a name that is not ASCII", company("Zoë"))
	add("`/` in a name", company("a/CN=admin"))
	add("`+` in a name", company("a+CN=admin"))
	add("`\\` in a name", company(`a\b`))
	add("two attributes in one RDN", named(pkix.RelativeDistinguishedNameSET{{Type: cn, Value: "a"}, {Type: ou, Value: "b"}}))
	add("a street and a given name", named(pkix.RelativeDistinguishedNameSET{{Type: oid(2, 5, 4, 9), Value: "Main"}}, pkix.RelativeDistinguishedNameSET{{Type: oid(2, 5, 4, 42), Value: "Jo"}}))
	add("an attribute without a name", named(pkix.RelativeDistinguishedNameSET{{Type: oid(1, 2, 3, 4), Value: "Jo"}}))
	add("no subject", testpki.Subject(pkix.Name{}), testpki.DNSNames("a.example"))
	return compared
}

// startBeforePage runs Caddy with every block of the page and these options in it, and
// returns the certificates of its clients.
func startBeforePage(t *testing.T, options ...string) (*rig.ForwardingRig, []comparedCertificate) {
	t.Helper()
	f := rig.NewForwardingRig(t)
	certificates := comparedCertificates(t, f.Rig)
	// Caddy itself logs the headers that it sends
	f.Change = func(config map[string]any) {
		rig.Member(t, config, "logging", "logs", "default")["exclude"] = []string{"events", "http.log", "http.handlers.reverse_proxy"}
	}
	realm := "mtls {\n\ttrust_pool file \"@DIR@/clients-ca.pem\"\n\tclient " + certificates[0].clientID + " {\n\t\tsubject CN=client,O=Company\n\t}\n"
	for _, c := range certificates {
		if c.clientID != certificates[0].clientID {
			realm += fmt.Sprintf("\tclient %s {\n\t\tcertificate \"@DIR@/%[1]s.pem\"\n\t}\n", c.clientID)
		}
	}
	site := "https://api.test:@HTTPS@ {\n\timport mtls\n"
	for _, section := range beforeSections(t) {
		for i, block := range section.here {
			block = strings.NewReplacer("localhost:8080", "@UP@", "mtls_auth {\n", "mtls_auth {\n"+strings.Join(options, "\n")+"\n").Replace(block)
			site += "\thandle " + section.path(i) + " {\n" + block + "\t}\n"
		}
	}
	f.Start(realm+"}\n", site+"}\n")
	return f, certificates
}

// difference is a row of the page's table of differences.
type difference struct {
	variables         []string
	certificate       string
	before, here, row string
}

func knownDifferences(t *testing.T) (differences []difference) {
	t.Helper()
	_, table, found := strings.Cut(readPage(t, beforePage), "\n| before | certificate | value before | value here |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("the page has no table of differences")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for row := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), " | ")
		if len(cells) != 4 {
			t.Fatalf("%d cells in %s", len(cells), row)
		}
		d := difference{certificate: strings.TrimSpace(cells[1]), before: codeOf(cells[2]), here: codeOf(cells[3]), row: strings.TrimSpace(row)}
		for _, match := range regexp.MustCompile("([A-Za-z]+) `([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
			d.variables = append(d.variables, match[1]+" "+match[2])
		}
		differences = append(differences, d)
	}
	return differences
}

// codeOf returns the first text between backticks. Without any, the value is "".
func codeOf(cell string) string {
	_, code, _ := strings.Cut(cell, "`")
	code, _, _ = strings.Cut(code, "`")
	return code
}

// describes reports whether a row says what both values are. One between … is a part.
func (d difference) describes(before, here string) bool {
	is := func(value, cell string) bool {
		if part := strings.Trim(cell, "…"); part != cell {
			return strings.Contains(value, part)
		}
		return value == cell
	}
	return is(before, d.before) && is(here, d.here)
}

// TestWhatTheAPIReadBefore compares, octet for octet, what an API reads from the real
// gateways of the page, and what it reads with the block of the page. All differences
// have to be in the page's table, and everything in the table has to differ.
func TestWhatTheAPIReadBefore(t *testing.T) {
	f, certificates := startBeforePage(t)
	server := f.Leaves[0]
	f.Write("front-api.pem", append(server.PEM(), server.KeyPEM()...))
	f.Write("front-api.key", server.KeyPEM())
	f.Write("front-clients-ca.pem", f.CA.PEM())
	own := strings.NewReplacer("listen 443 ssl;", "listen 127.0.0.1:@PORT@ ssl;", "bind :443 ", "bind 127.0.0.1:@PORT@ ", "*:443", "127.0.0.1:@PORT@",
		"/etc/nginx/", "@DIR@/front-", "/etc/haproxy/", "@DIR@/front-", "/etc/apache2/", "@DIR@/front-",
		"api.example.com", "api.test", "localhost:8080", f.Upstream.Address,
		"tls {\n", "tls \"@DIR@/server.pem\" \"@DIR@/server.key\" {\n", "file clients-ca.pem", "file \"@DIR@/front-clients-ca.pem\"")
	gateways := map[string]func(*testing.T, *rig.ForwardingRig, string) string{
		"nginx": startProgram(nginx), "HAProxy": startProgram(haproxy), "Apache": startProgram(apache),
		"Caddy without this plugin": func(t *testing.T, f *rig.ForwardingRig, config string) string {
			return rig.Node(f.Rig, t, "", "https://api.test:@HTTPS@ {\n\tbind 127.0.0.1\n"+config+"}\n").HTTPS
		},
	}
	differences, seen := knownDifferences(t), make(map[string]bool)
	for _, section := range beforeSections(t) {
		start := gateways[section.title]
		if (section.before == "") != (start == nil) {
			t.Errorf("%s: has a configuration to compare with: %t", section.title, section.before != "")
		}
		if start == nil {
			continue
		}
		delete(gateways, section.title)
		t.Run(section.title, func(t *testing.T) {
			port := start(t, f, own.Replace(section.before))
			for _, c := range certificates {
				before, here := f.Caller(t, "h1", c.leaf), f.Caller(t, "h1", c.leaf)
				before.Address = "127.0.0.1:" + port
				was := before.Get("https://api.test"+section.path(0)).WantStatus(t, http.StatusOK).Seen.Header
				is := here.Get("https://api.test"+section.path(0)).WantStatus(t, http.StatusOK).Seen.Header
				for _, set := range settingBefore.FindAllStringSubmatch(section.before, -1) {
					gateway, _, _ := strings.Cut(section.title, " ")
					variable := gateway + " " + set[2]
					compareHeader(t, differences, seen, variable, c, was.Values(set[1]), is.Values(set[1]))
				}
			}
		})
	}
	if len(gateways) > 0 {
		t.Errorf("the page has no sections %q", slices.Collect(maps.Keys(gateways)))
	}
	if t.Failed() {
		return
	}
	for _, d := range differences {
		for _, variable := range d.variables {
			if !seen[variable+d.row] {
				t.Errorf("%s did not differ as in\n%s", variable, d.row)
			}
		}
	}
}

// compareHeader compares what two gateways have sent for a certificate.
func compareHeader(t *testing.T, differences []difference, seen map[string]bool, variable string, c comparedCertificate, was, is []string) {
	t.Helper()
	before, here := strings.Join(was, "\n"), strings.Join(is, "\n")
	if before == here && len(was) == len(is) {
		return
	}
	// what is written differently must say the same
	if isHash := strings.Contains(variable, "sha"); isHash && !strings.EqualFold(before, here) || strings.Contains(variable, "CERT}") && unescaped(before) != unescaped(here) {
		t.Errorf("%s says something else of %s: %q, not %q", variable, c.kind, here, before)
	}
	for _, kind := range []string{c.kind, anyCertificate} {
		for _, d := range differences {
			if d.certificate != kind || !slices.Contains(d.variables, variable) {
				continue
			}
			if kind != c.kind || d.describes(before, here) {
				seen[variable+d.row] = seen[variable+d.row] || kind == c.kind
				return
			}
		}
	}
	t.Errorf("%s with %s: the API read %.200q, and %.200q here", variable, c.kind, was, is)
}

func unescaped(value string) string {
	text, _ := url.PathUnescape(value)
	return text
}
