package validators

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// TestRandomChainsAgainstOpenSSL compares the verdicts on a thousand chains with those of
// `openssl verify`. Each difference is explained by a rule, of which there is a closed
// list for either direction; the page about what OpenSSL accepts has the same.
func TestRandomChainsAgainstOpenSSL(t *testing.T) {
	program := testtool.OpenSSL(t)
	const chains = 1000
	maker := newChainMaker(t, 11)
	work := make(chan *randomChain)
	var (
		mu        sync.Mutex
		workers   sync.WaitGroup
		explained = make(map[string]int)
		outcomes  = make(map[string]int)
	)
	for range max(2, runtime.GOMAXPROCS(0)) {
		dir := t.TempDir()
		workers.Go(func() {
			for c := range work {
				ours, theirs := c.ours(), opensslVerify(t, program, dir, c)
				rule := ""
				switch {
				case ours == nil && theirs != 0:
					rule = explanation(onlyHere, c, theirs, ours)
				case ours != nil && theirs == 0:
					rule = explanation(onlyOpenSSL, c, theirs, ours)
				}
				mu.Lock()
				outcomes[strconv.FormatBool(ours == nil)+" "+strconv.FormatBool(theirs == 0)]++
				explained[rule]++
				if rule == "?" {
					t.Errorf("here: %v, OpenSSL: error %d, %s\n%s", ours, theirs, strings.Join(c.odd, ", "), c.describe())
				}
				if ours != nil && strings.Contains(ours.Error(), "x509") {
					t.Errorf("words of the library: %v", ours)
				}
				mu.Unlock()
			}
		})
	}
	for range chains {
		work <- maker.chain()
	}
	close(work)
	workers.Wait()
	t.Logf("accepted here, by OpenSSL: %v", outcomes)
	for rule, n := range explained {
		if rule != "" {
			t.Logf("%4d %s", n, rule)
		}
	}
	if outcomes["true true"] < chains/10 || outcomes["false false"] < chains/10 {
		t.Error("too few chains are right, or wrong, to say anything")
	}
}

// ours returns why the chain is refused, or nil.
func (c *randomChain) ours() error {
	for _, refusal := range []*Refusal{CheckValidity(c.leaf, now), CheckLeaf(c.leaf), CheckPKILeaf(c.leaf)} {
		if refusal != nil {
			return refusal
		}
	}
	_, err := c.pool().Verify(c.leaf, c.presented, now)
	return err
}

// describe lists the certificates for whoever looks for an explanation.
func (c *randomChain) describe() string {
	var text strings.Builder
	for kind, certs := range map[string][]*x509.Certificate{"leaf": {c.leaf}, "presented": c.presented, "anchor": c.anchors} {
		for _, cert := range certs {
			fmt.Fprintf(&text, "\t%s %q by %q, usage %b %v %v, CA %v %d, permitted %v %v %v %v, excluded %v %v %v %v, names %v %v %v %v\n", kind, dn.Format(cert.RawSubject), dn.Format(cert.RawIssuer),
				cert.KeyUsage, cert.ExtKeyUsage, cert.UnknownExtKeyUsage, cert.IsCA, cert.MaxPathLen,
				cert.PermittedDNSDomains, cert.PermittedEmailAddresses, cert.PermittedURIDomains, cert.PermittedIPRanges,
				cert.ExcludedDNSDomains, cert.ExcludedEmailAddresses, cert.ExcludedURIDomains, cert.ExcludedIPRanges,
				cert.DNSNames, cert.EmailAddresses, cert.URIs, cert.IPAddresses)
		}
	}
	return text.String()
}

var opensslError = regexp.MustCompile(`error (\d+) at \d+ depth`)

// opensslVerify returns the number of OpenSSL's error, or 0.
func opensslVerify(t *testing.T, program, dir string, c *randomChain) int {
	write := func(name string, certs ...*x509.Certificate) string {
		var text bytes.Buffer
		for _, cert := range certs {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
			t.Error(err)
		}
		return path
	}
	args := []string{"verify", "-purpose", "sslclient", "-partial_chain", "-no-CApath", "-no-CAstore",
		"-attime", strconv.FormatInt(now.Unix(), 10), "-CAfile", write("ca.pem", c.anchors...)}
	if len(c.presented) > 0 {
		args = append(args, "-untrusted", write("sent.pem", c.presented...))
	}
	out, err := exec.Command(program, append(args, write("leaf.pem", c.leaf))...).CombinedOutput()
	if err == nil {
		return 0
	}
	match := opensslError.FindSubmatch(out)
	if match == nil {
		t.Errorf("openssl: %s", out)
		return -1
	}
	number, _ := strconv.Atoi(string(match[1]))
	return number
}

// difference is a rule by which one side accepts what the other refuses.
type difference struct {
	name string
	// codes are the errors of OpenSSL, words are part of the refusal here.
	codes []int
	words string
	// explains looks at the certificates; nil means that the error says it all.
	explains func(c *randomChain) bool
}

// explanation returns the name of the rule that explains a difference, or "?".
func explanation(rules []difference, c *randomChain, code int, refusal error) string {
	for _, rule := range rules {
		if (rule.codes == nil || slices.Contains(rule.codes, code)) && (rule.words == "" || strings.Contains(refusal.Error(), rule.words)) &&
			(rule.explains == nil || rule.explains(c)) {
			return rule.name
		}
	}
	return "?"
}

// onlyHere are the rules by which a chain is accepted here and not by OpenSSL.
var onlyHere = []difference{
	{"OpenSSL asks for clientAuth where RFC 5280 is content with anyExtendedKeyUsage", []int{26}, "", func(c *randomChain) bool {
		return c.everyChain(func(cert *x509.Certificate) bool {
			return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		})
	}},
	{"OpenSSL takes a common name for a DNS name under name constraints", []int{47, 48}, "", func(c *randomChain) bool {
		return len(c.leaf.DNSNames) == 0 && strings.Contains(c.leaf.Subject.CommonName, ".") && c.everyChain(hasDNSConstraints)
	}},
	{"OpenSSL compares the emailAddress of a subject only if it is an IA5String", []int{53}, "", func(c *randomChain) bool {
		return c.leaf.Subject.ExtraNames == nil && slices.ContainsFunc(c.leaf.Subject.Names, isEmailAddress) && c.everyChain(hasNameConstraints)
	}},
	{"OpenSSL asks for the key identifier of the issuer where RFC 5280 is content with its name and key", []int{20}, "", func(c *randomChain) bool {
		return c.everyPair(func(cert, issuer *x509.Certificate) bool {
			return len(cert.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId)
		})
	}},
	{"OpenSSL looks for no issuer of a self-issued CA", []int{18, 19, 20}, "", func(c *randomChain) bool {
		return c.everyPair(func(cert, _ *x509.Certificate) bool {
			return cert != c.leaf && bytes.Equal(cert.RawSubject, cert.RawIssuer)
		})
	}},
	{"OpenSSL tries one path, and here all paths are tried", nil, "", func(c *randomChain) bool {
		chains, _ := c.pool().Verify(c.leaf, c.presented, now)
		return slices.ContainsFunc(chains[0][1:], func(ca *x509.Certificate) bool {
			return slices.ContainsFunc(slices.Concat(c.presented, c.anchors), func(other *x509.Certificate) bool {
				return bytes.Equal(other.RawSubject, ca.RawSubject) && !other.Equal(ca)
			})
		})
	}},
}

// onlyOpenSSL are the rules by which a chain is accepted by OpenSSL and not here.
var onlyOpenSSL = []difference{
	{"the leaf may be an anchor", nil, "", func(c *randomChain) bool { return slices.ContainsFunc(c.anchors, c.leaf.Equal) }},
	{"the leaf may be a CA", nil, "belongs to a CA", nil},
	{"the leaf may have keyCertSign", nil, "key usage has keyCertSign", nil},
	{"the leaf may have keyAgreement alone", nil, "lacks digitalSignature", func(c *randomChain) bool { return c.leaf.KeyUsage == x509.KeyUsageKeyAgreement }},
	{"a signature may be made with SHA-1", nil, "insecure algorithm SHA1", nil},
	{"names are compared whatever their string types", nil, "other ASN.1 string types", nil},
	{"directory names are compared with name constraints", nil, "restrict directory names", nil},
	{"other forms of names are ignored where none occurs", nil, "critical name constraints restrict forms of names", nil},
	{"an IP network may have host bits", nil, "bits outside its mask", nil},
	{"a URI without a name for a host passes name constraints of other forms", nil, "it has a URI with", nil},
	{"an excluded host does not stand for the hosts below it", nil, "do not allow one of its names", func(c *randomChain) bool {
		return slices.ContainsFunc(c.all(), func(ca *x509.Certificate) bool { return len(ca.ExcludedEmailAddresses)+len(ca.ExcludedURIDomains) > 0 })
	}},
	{"the emailAddress of a subject is compared with name constraints", nil, "emailAddress of a subject", nil},
	{"policy constraints are ignored", nil, "policy constraints", nil},
	{"an anchor need not say that it is a CA", nil, "it is not a CA (basic constraints)", nil},
	{"a self-issued CA does not count in the path length", nil, "path length constraint", func(c *randomChain) bool {
		return slices.ContainsFunc(c.all(), func(cert *x509.Certificate) bool { return cert.IsCA && bytes.Equal(cert.RawSubject, cert.RawIssuer) })
	}},
}

func (c *randomChain) all() []*x509.Certificate {
	return slices.Concat([]*x509.Certificate{c.leaf}, c.presented, c.anchors)
}

// everyChain reports whether each chain that verifies here has a certificate of that
// kind.
func (c *randomChain) everyChain(has func(*x509.Certificate) bool) bool {
	return c.everyPair(func(cert, issuer *x509.Certificate) bool { return has(cert) || has(issuer) })
}

// everyPair reports whether each chain that verifies here has a certificate and an
// issuer of that kind.
func (c *randomChain) everyPair(has func(cert, issuer *x509.Certificate) bool) bool {
	chains, _ := c.pool().Verify(c.leaf, c.presented, now)
	return !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		for i, issuer := range chain[1:] {
			if has(chain[i], issuer) {
				return false
			}
		}
		return true
	})
}

func hasNameConstraints(ca *x509.Certificate) bool { return extension(ca, oidNameConstraints) != nil }

func hasDNSConstraints(ca *x509.Certificate) bool {
	return len(ca.PermittedDNSDomains)+len(ca.ExcludedDNSDomains) > 0
}

func isEmailAddress(attribute pkix.AttributeTypeAndValue) bool {
	return attribute.Type.Equal(oidEmailAddress)
}
