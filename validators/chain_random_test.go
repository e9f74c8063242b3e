package validators

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// randomChain is what a client presents, and the pool that judges it.
type randomChain struct {
	leaf               *x509.Certificate
	presented, anchors []*x509.Certificate
	// odd says what was done to the certificates.
	odd []string
}

func (c *randomChain) pool() *TrustPool {
	pool := x509.NewCertPool()
	for _, anchor := range c.anchors {
		pool.AddCert(anchor)
	}
	return NewTrustPool(pool, c.anchors...)
}

// chainMaker makes chains whose features depend on the seed alone. Most of them are
// nearly right.
type chainMaker struct {
	*rand.Rand
	t    testing.TB
	used map[testpki.KeyType]int
	odd  []string
}

func newChainMaker(t testing.TB, seed uint64) *chainMaker {
	return &chainMaker{Rand: rand.New(rand.NewPCG(seed, seed)), t: t, used: make(map[testpki.KeyType]int)}
}

// chainKeys are more keys of each kind than one chain has.
var chainKeys = sync.OnceValues(func() (map[testpki.KeyType][]crypto.Signer, error) {
	keys := make(map[testpki.KeyType][]crypto.Signer)
	for _, kind := range []testpki.KeyType{testpki.P256, testpki.P384, testpki.RSA2048, testpki.Ed25519} {
		for range 10 {
			key, err := testpki.NewKey(kind)
			if err != nil {
				return nil, err
			}
			keys[kind] = append(keys[kind], key)
		}
	}
	return keys, nil
})

// key returns the key of the next certificate of a chain.
func (m *chainMaker) key() crypto.Signer {
	keys, err := chainKeys()
	if err != nil {
		m.t.Fatal(err)
	}
	kind := pick(m, testpki.P256, testpki.P256, testpki.P256, testpki.P384, testpki.RSA2048, testpki.RSA2048, testpki.Ed25519)
	m.used[kind]++
	return keys[kind][m.used[kind]%len(keys[kind])]
}

func pick[T any](m *chainMaker, values ...T) T { return values[m.IntN(len(values))] }

// chance returns true once in n times.
func (m *chainMaker) chance(n int) bool { return m.IntN(n) == 0 }

func (m *chainMaker) note(format string, args ...any) {
	m.odd = append(m.odd, fmt.Sprintf(format, args...))
}

// chain makes one chain.
func (m *chainMaker) chain() *randomChain {
	m.odd = nil
	depth := m.IntN(4)
	level := -1 // of the certificate that has most of the oddities
	if !m.chance(4) {
		level = m.IntN(depth + 2)
	}
	names := [][]byte{m.name("Root")}
	rootKey := m.key()
	root := testpki.MustCA(m.t, append([]testpki.Option{testpki.RawSubject(names[0]), testpki.Key(rootKey)}, m.caOptions(level == 0)...)...)
	c := &randomChain{anchors: []*x509.Certificate{root.Cert}}
	path := []*testpki.CA{root}
	for i := 1; i <= depth; i++ {
		above := path[len(path)-1]
		name := m.name(fmt.Sprint("CA ", i))
		if m.chance(12) {
			name = names[i-1]
			m.note("CA %d is self-issued", i)
		}
		names = append(names, name)
		key := m.key()
		opts := append([]testpki.Option{testpki.RawSubject(name), testpki.Key(key)}, m.caOptions(level == i)...)
		signer := m.signer(above, level == i)
		sub := testpki.MustIntermediate(m.t, signer, append(opts, m.signature(signer)...)...)
		sub.Chain = append([]*x509.Certificate{sub.Cert}, above.Chain...)
		path = append(path, sub)
	}
	issuer := path[depth]
	key := m.key()
	signer := m.signer(issuer, level == depth+1)
	opts := append(append([]testpki.Option{testpki.Key(key)}, m.leafOptions(level == depth+1)...), m.signature(signer)...)
	c.leaf = testpki.MustIssue(m.t, signer, opts...).Cert
	c.presented = slices.Clone(issuer.Chain)
	m.arrange(c, path)
	c.odd = m.odd
	return c
}

// oidCommonName is the attribute type of CN.
var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// rdnSET is a RelativeDistinguishedName whose values keep their encoding. It is a SET OF,
// because encoding/asn1 looks at the suffix of its name.
type rdnSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// name is a Name in one of the string types, sometimes with an e-mail address.
func (m *chainMaker) name(common string) []byte {
	name := []rdnSET{{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("Company")}}}}
	if m.chance(20) {
		m.note("%s has an e-mail address in its subject", common)
		name = append(name, rdnSET{{Type: oidEmailAddress, Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(pick(m, "ca@example.com", "ca@example.net"))}}})
	}
	name = append(name, rdnSET{{Type: oidCommonName, Value: asn1.RawValue{Tag: pick(m, asn1.TagUTF8String, asn1.TagPrintableString), Bytes: []byte(common)}}})
	der, err := asn1.Marshal(name)
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

// signer returns what signs below a CA: the CA itself, or something like it.
func (m *chainMaker) signer(ca *testpki.CA, odd bool) *testpki.CA {
	if !odd || !m.chance(6) {
		return ca
	}
	cert := *ca.Cert
	twin := &testpki.CA{Cert: &cert, Key: ca.Key, Chain: ca.Chain}
	switch m.IntN(3) {
	case 0:
		m.note("the key identifier of the issuer differs")
		cert.SubjectKeyId = []byte("another key")
	case 1:
		m.note("the issuer is written with other string types")
		cert.RawSubject = respelled(m.t, cert.RawSubject)
	case 2:
		m.note("a CA of the same name with another key signs")
		key := m.key()
		twin = testpki.MustCA(m.t, testpki.RawSubject(cert.RawSubject), testpki.Key(key))
		twin.Chain = ca.Chain
	}
	return twin
}

// respelled returns the same name with other string types.
func respelled(t testing.TB, raw []byte) []byte {
	var name []rdnSET
	if _, err := asn1.Unmarshal(raw, &name); err != nil {
		t.Fatal(err)
	}
	for _, rdn := range name {
		for i := range rdn {
			switch value := &rdn[i].Value; value.Tag {
			case asn1.TagUTF8String:
				*value = asn1.RawValue{Tag: asn1.TagPrintableString, Bytes: value.Bytes}
			case asn1.TagPrintableString:
				*value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: value.Bytes}
			}
		}
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (m *chainMaker) signature(by *testpki.CA) []testpki.Option {
	if _, isRSA := by.Cert.PublicKey.(*rsa.PublicKey); isRSA && m.chance(10) {
		m.note("SHA-1")
		return []testpki.Option{testpki.Template(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })}
	}
	return nil
}

func (m *chainMaker) validity() testpki.Option {
	hours := pick(m, [2]int{-2, -1}, [2]int{1, 2}, [2]int{-1, 1})
	return testpki.Validity(now.Add(time.Duration(hours[0])*time.Hour), now.Add(time.Duration(hours[1])*time.Hour))
}

func (m *chainMaker) extendedUsage() []testpki.Option {
	return pick(m,
		[]testpki.Option{testpki.NoEKU()},
		[]testpki.Option{testpki.EKU(x509.ExtKeyUsageServerAuth)},
		[]testpki.Option{testpki.EKU(x509.ExtKeyUsageClientAuth)},
		[]testpki.Option{testpki.EKU(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)},
		[]testpki.Option{testpki.EKU(x509.ExtKeyUsageAny)},
		[]testpki.Option{testpki.NoEKU(), testpki.Template(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} })},
		[]testpki.Option{testpki.NoEKU(), testpki.Extension(pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 0}})},
	)
}

func (m *chainMaker) keyUsage(usages ...x509.KeyUsage) []testpki.Option {
	if m.chance(5) {
		return []testpki.Option{testpki.KeyUsage(0), testpki.Extension(pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{3, 1, 0}})}
	}
	return []testpki.Option{testpki.KeyUsage(pick(m, usages...))}
}

func (m *chainMaker) unknown() testpki.Option {
	return testpki.Extension(pkix.Extension{Id: unknownExtension, Critical: m.chance(2), Value: []byte{5, 0}})
}

// caOptions are the features of a CA.
func (m *chainMaker) caOptions(odd bool) (opts []testpki.Option) {
	if m.chance(8) {
		opts = append(opts, testpki.MaxPathLen(m.IntN(3)))
	}
	if !odd {
		return opts
	}
	m.note("an odd CA")
	switch m.IntN(9) {
	case 0:
		return append(opts, m.validity())
	case 1:
		return append(opts, m.keyUsage(0, x509.KeyUsageCRLSign, x509.KeyUsageDigitalSignature, x509.KeyUsageCertSign)...)
	case 2:
		return append(opts, m.extendedUsage()...)
	case 3:
		return []testpki.Option{pick(m, testpki.IsCA(false), testpki.NoBasicConstraints(), m.unknown())}
	case 4:
		return append(opts, testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 36}, Critical: true, Value: []byte{0x30, 3, 0x80, 1, byte(m.IntN(2))}}))
	}
	return append(opts, m.constraints())
}

// constraints are name constraints of one or two forms.
func (m *chainMaker) constraints() testpki.Option {
	subtrees := func() []generalSubtree {
		switch m.IntN(7) {
		case 0, 1:
			return trees(dNSName, pick(m, "example.com", ".example.com", "a.example.com", "example.net"))
		case 2:
			return trees(rfc822Name, pick(m, "example.com", ".example.com", "joe@example.com", "example.net"))
		case 3:
			return trees(uniformResourceIdentifier, pick(m, "example.com", ".example.com", "example.net"))
		case 4:
			return trees(iPAddress, pick(m, "\x0a\x00\x00\x00\xff\x00\x00\x00", "\x09\x00\x00\x00\xff\x00\x00\x00", "\x0a\x00\x00\x01\xff\x00\x00\x00"), "\x08\x00\x00\x00\xff\x00\x00\x00")
		case 5:
			organization := pick(m, "Company", "Another")
			der, _ := asn1.Marshal([]rdnSET{{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(organization)}}}})
			return trees(directoryName, string(der))
		}
		return trees(registeredID, "\x2a\x03")
	}
	value := nameConstraints{}
	if m.chance(2) {
		value.Permitted = subtrees()
	}
	if value.Permitted == nil || m.chance(3) {
		value.Excluded = subtrees()
	}
	der, err := asn1.Marshal(value)
	if err != nil {
		m.t.Fatal(err)
	}
	m.note("name constraints")
	return testpki.Extension(pkix.Extension{Id: oidNameConstraints, Critical: m.chance(2), Value: der})
}

// leafOptions are the features of a client certificate.
func (m *chainMaker) leafOptions(odd bool) []testpki.Option {
	opts := []testpki.Option{testpki.Subject(m.leafName()), m.alternativeNames()}
	if !odd {
		return opts
	}
	m.note("an odd leaf")
	switch m.IntN(5) {
	case 0:
		return append(opts, m.validity())
	case 1:
		return append(opts, m.keyUsage(0, x509.KeyUsageDigitalSignature, x509.KeyUsageKeyAgreement, x509.KeyUsageKeyEncipherment, x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign)...)
	case 2:
		return append(opts, m.extendedUsage()...)
	case 3:
		return append(opts, testpki.IsCA(true), testpki.MaxPathLen(-1))
	}
	return append(opts, m.unknown())
}

func (m *chainMaker) leafName() pkix.Name {
	name := pkix.Name{Organization: []string{"Company"}, CommonName: pick(m, "client", "client", "a.example.com", "b.example.net")}
	if m.chance(10) {
		name.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidEmailAddress, Value: pick(m, "joe@example.com", "joe@example.net")}}
	}
	return name
}

func (m *chainMaker) alternativeNames() testpki.Option {
	var names []asn1.RawValue
	add := func(tag int, values ...string) {
		if m.chance(4) {
			names = append(names, general(tag, false, []byte(pick(m, values...))))
		}
	}
	add(dNSName, "a.example.com", "example.com", "b.example.net")
	add(rfc822Name, "joe@example.com", "joe@a.example.com", "joe@example.net")
	add(uniformResourceIdentifier, "spiffe://example.com/a", "spiffe://a.example.com/a", "https://example.net/", "urn:uuid:1", "https://10.0.0.1/")
	add(iPAddress, "\x0a\x00\x00\x01", "\x0b\x00\x00\x01")
	add(registeredID, "\x2a\x03", "\x2a\x04")
	if names == nil {
		return testpki.Template(func(*x509.Certificate) {})
	}
	return testpki.GeneralNames(names...)
}

// arrange decides what is presented and what is trusted.
func (m *chainMaker) arrange(c *randomChain, path []*testpki.CA) {
	last := path[len(path)-1]
	if m.chance(4) && len(path) > 1 {
		i := 1 + m.IntN(len(path)-1)
		if m.chance(2) {
			m.note("CA %d is in the pool", i)
			c.anchors = append(c.anchors, path[i].Cert)
		} else {
			m.note("only CA %d is in the pool", i)
			c.anchors = []*x509.Certificate{path[i].Cert}
		}
	}
	if m.chance(5) { // another way to one of the CAs, by a root that is trusted or not
		i := m.IntN(len(path))
		key := m.key()
		other := testpki.MustCA(m.t, testpki.CommonName("Other Root"), testpki.Key(key))
		cross := testpki.MustIntermediate(m.t, other, append([]testpki.Option{testpki.RawSubject(path[i].Cert.RawSubject), testpki.Key(path[i].Key)}, m.caOptions(m.chance(4))...)...)
		m.note("CA %d is cross-signed", i)
		c.presented = append(c.presented, cross.Cert)
		if m.chance(2) {
			c.anchors = append(c.anchors, other.Cert)
		}
	}
	if m.chance(15) {
		m.note("the leaf is in the pool")
		c.anchors = append(c.anchors, c.leaf)
	}
	if m.chance(12) && len(c.presented) > 0 {
		m.note("one is not sent")
		i := m.IntN(len(c.presented))
		c.presented = slices.Delete(c.presented, i, i+1)
	}
	if m.chance(4) {
		c.presented = append(c.presented, pick(m, path[0].Cert, last.Cert, c.leaf))
	}
	if m.chance(2) {
		m.Shuffle(len(c.presented), func(i, j int) { c.presented[i], c.presented[j] = c.presented[j], c.presented[i] })
	}
}
