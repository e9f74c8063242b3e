package validators

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestPathRules_P1 tests the rules of RFC 5280 §6.1 on chains like those of the NIST
// suite of path validation tests.
func TestPathRules_P1(t *testing.T) {
	type options = []testpki.Option
	policies := func(oids ...string) testpki.Option {
		var list []struct{ ID asn1.RawValue }
		for _, oid := range oids {
			list = append(list, struct{ ID asn1.RawValue }{asn1.RawValue{Tag: asn1.TagOID, Bytes: []byte(oid)}})
		}
		der, err := asn1.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		return testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Value: der})
	}
	extension := func(last int, value ...byte) testpki.Option {
		return testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, last}, Critical: true, Value: value})
	}
	const one, two, anyPolicy = "\x2a\x03\x01", "\x2a\x03\x02", "\x55\x1d\x20\x00"
	explicit := func(skip byte) testpki.Option { return extension(36, 0x30, 3, 0x80, 1, skip) }
	noMapping := extension(36, 0x30, 6, 0x80, 1, 0, 0x81, 1, 0)
	noAny := extension(54, 2, 1, 0)
	mapped := extension(33, append([]byte{0x30, 12, 0x30, 10, 6, 3}, one+"\x06\x03"+two...)...)
	at := func(from, until string) testpki.Option {
		begin, err := time.Parse(time.DateOnly, from)
		if err != nil {
			t.Fatal(err)
		}
		end, err := time.Parse(time.DateOnly, until)
		if err != nil {
			t.Fatal(err)
		}
		return testpki.Validity(begin, end)
	}
	for name, test := range map[string]struct {
		cas  []options // from the anchor down
		leaf options
		why  string
	}{
		"dates before 2000 and after 2050": {[]options{{at("1950-01-01", "2099-12-31")}, {at("1999-01-01", "2050-01-01")}}, options{at("1999-12-31", "2051-01-01")}, ""},
		"a CA of the past":                 {[]options{{}, {at("1970-01-01", "1999-12-31")}}, nil, "it expired at 1999-12-31"},
		"a CA of the future":               {[]options{{}, {at("2048-01-01", "2050-01-01")}}, nil, "it is not valid before 2048-01-01"},
		"path length 0":                    {[]options{{}, {testpki.MaxPathLen(0)}}, nil, ""},
		"path length 0, one more":          {[]options{{}, {testpki.MaxPathLen(0)}, {}}, nil, "path length constraint allows 0"},
		"path length 1, one more":          {[]options{{}, {testpki.MaxPathLen(1)}, {}}, nil, ""},
		"a longer one below":               {[]options{{testpki.MaxPathLen(1)}, {testpki.MaxPathLen(5)}, {}}, nil, "path length constraint allows 1"},
		"of the anchor":                    {[]options{{testpki.MaxPathLen(0)}, {}}, nil, "path length constraint allows 0"},
		"explicit policy":                  {[]options{{}, {explicit(0), policies(one)}, {policies(one)}}, options{policies(one)}, ""},
		"explicit policy, another one":     {[]options{{}, {explicit(0), policies(one)}, {policies(one)}}, options{policies(two)}, "policy constraints"},
		"explicit policy, none":            {[]options{{}, {explicit(0), policies(one)}, {}}, options{policies(one)}, "policy constraints"},
		"explicit policy after two":        {[]options{{}, {explicit(2)}, {}}, nil, "policy constraints"},
		"explicit policy after three":      {[]options{{}, {explicit(3)}, {}}, nil, ""},
		"any policy":                       {[]options{{}, {explicit(0), policies(anyPolicy)}, {policies(anyPolicy)}}, options{policies(one)}, ""},
		"any policy inhibited":             {[]options{{}, {explicit(0), noAny, policies(one)}, {policies(anyPolicy)}}, options{policies(one)}, "policy constraints"},
		"policy mapped":                    {[]options{{}, {explicit(0), policies(one), mapped}}, options{policies(two)}, ""},
		"policy mapping inhibited":         {[]options{{}, {noMapping, policies(one)}, {policies(one), mapped}}, options{policies(two)}, "policy constraints"},
	} {
		t.Run(name, func(t *testing.T) {
			ca := testpki.MustCA(t, test.cas[0]...)
			root := ca
			for i, opts := range test.cas[1:] {
				ca = testpki.MustIntermediate(t, ca, append(options{testpki.CommonName(string(rune('A' + i)))}, opts...)...)
			}
			leaf := testpki.MustIssue(t, ca, test.leaf...)
			permutations(leaf.Chain, func(presented []*x509.Certificate) {
				if pool := NewTrustPool(root.Pool(), root.Cert); test.why == "" {
					mustVerify(t, pool, leaf, presented...)
				} else {
					mustNotVerify(t, pool, leaf, test.why, presented...)
				}
			})
		})
	}
}
