package validators

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// hostileChain is what a stranger presents to make verification expensive: a
// leaf and n CA certificates of their own, all with P-521 keys, with the name of the
// given CA, and claiming to be issued by it, so that each of them may be the issuer
// of every other and of the leaf. They repeat after the 16th.
func hostileChain(tb testpki.TB, ca *testpki.CA, n int) (*testpki.Leaf, []*x509.Certificate) {
	tb.Helper()
	named, p521 := testpki.RawSubject(ca.Cert.RawSubject), testpki.WithKeyType(testpki.P521)
	fake := testpki.MustCA(tb, named, p521)
	var presented []*x509.Certificate
	for i := range n {
		if i < 16 {
			presented = append(presented, testpki.MustIntermediate(tb, fake, named, p521).Cert)
		} else {
			presented = append(presented, presented[i-16])
		}
	}
	return testpki.MustIssue(tb, fake, p521), presented
}

// work is what a TrustPool has asked x509 to do.
type work struct {
	calls int
	// keys are the certificates whose keys could have verified a signature.
	keys []*x509.CertPool
}

func watch(pool *TrustPool) *work {
	w := &work{}
	pool.verify = func(cert *x509.Certificate, opts x509.VerifyOptions) ([][]*x509.Certificate, error) {
		w.calls++
		if opts.Intermediates != nil {
			w.keys = append(w.keys, opts.Intermediates.Clone())
		}
		return cert.Verify(opts)
	}
	return w
}

// only reports whether no keys but those of the given CAs could have been used.
func (w *work) only(cas ...*testpki.CA) bool {
	return !slices.ContainsFunc(w.keys, func(keys *x509.CertPool) bool {
		all := keys.Clone()
		want := x509.NewCertPool()
		for _, ca := range cas {
			all.AddCert(ca.Cert)
			want.AddCert(ca.Cert)
		}
		return !all.Equal(want)
	})
}

func TestVerifyHostileIntermediatesCostNothing(t *testing.T) {
	root := testpki.MustCA(t)
	leaf, presented := hostileChain(t, root, 100)
	pool := NewTrustPool(root.Pool())
	work := watch(pool)
	mustNotVerify(t, pool, leaf, "only the first 8 of 100", presented...)
	if want := MaxIntermediates + 1; work.calls != want {
		t.Errorf("%d verifications, want %d: one for each considered, one for the leaf", work.calls, want)
	}
	if !work.only() {
		t.Error("the key of a presented certificate that had not verified was used")
	}
	if len(*pool.known.Load()) != 0 {
		t.Error("a stranger's certificate is remembered")
	}

	// A good chain is found only among the first certificates.
	sub := testpki.MustIntermediate(t, root)
	good := testpki.MustIssue(t, sub)
	mustVerify(t, pool, good, append(slices.Clone(presented[:7]), sub.Cert)...)
	mustNotVerify(t, pool, good, "unknown authority", append(slices.Clone(presented[:8]), sub.Cert)...)
}

func TestVerifyHostileIntermediatesBelowTrueOnes(t *testing.T) {
	root := testpki.MustCA(t)
	one := testpki.MustIntermediate(t, root, testpki.CommonName("One"))
	two := testpki.MustIntermediate(t, one, testpki.CommonName("Two"))
	leaf, hostile := hostileChain(t, two, 6)
	for name, presented := range map[string][]*x509.Certificate{
		"true ones last":  append(slices.Clone(hostile), two.Cert, one.Cert),
		"true ones first": append([]*x509.Certificate{one.Cert, two.Cert}, hostile...),
	} {
		t.Run(name, func(t *testing.T) {
			pool := NewTrustPool(root.Pool())
			for range 2 {
				work := watch(pool)
				mustNotVerify(t, pool, leaf, "unknown authority", presented...)
				// Each hostile one before and after Two verified, Two before and
				// after One did, One, and the leaf.
				if most := 2*len(hostile) + 4; work.calls > most {
					t.Errorf("%d verifications, want at most %d", work.calls, most)
				}
				if !work.only(one, two) {
					t.Error("the key of a presented certificate that had not verified was used")
				}
			}
			if n := len(*pool.known.Load()); n != 2 {
				t.Errorf("%d certificates remembered, want the two true ones", n)
			}
		})
	}
}

func TestVerifyReadsNoStrangersNameConstraints(t *testing.T) {
	root := testpki.MustCA(t)
	fake := testpki.MustCA(t, testpki.RawSubject(root.Cert.RawSubject))
	var presented []*x509.Certificate
	for range MaxIntermediates {
		presented = append(presented, testpki.MustIntermediate(t, fake, testpki.Template(func(c *x509.Certificate) {
			c.PermittedDNSDomains = slices.Repeat([]string{"a"}, 5000)
		})).Cert)
	}
	leaf := testpki.MustIssue(t, root)
	pool := NewTrustPool(root.Pool())
	if n := testing.AllocsPerRun(1, func() { mustVerify(t, pool, leaf, presented...) }); n > 5000 {
		t.Errorf("%v allocations: unverified name constraints were read", n)
	}
}

// TestVerifyExplainsStrangersCheaply tests that long names do not make the explanation
// of a refusal expensive.
func TestVerifyExplainsStrangersCheaply(t *testing.T) {
	root := testpki.MustCA(t)
	var units []string
	for i := range 60 {
		units = append(units, fmt.Sprint("ö", strings.Repeat("x", 30), i))
	}
	named := testpki.Subject(pkix.Name{OrganizationalUnit: units})
	fake := testpki.MustCA(t, named)
	var presented []*x509.Certificate
	for range MaxIntermediates {
		presented = append(presented, testpki.MustIntermediate(t, fake, named).Cert)
	}
	leaf := testpki.MustIssue(t, fake)
	pool := NewTrustPool(root.Pool(), root.Cert)
	if n := testing.AllocsPerRun(10, func() { mustNotVerify(t, pool, leaf, "unknown authority", presented...) }); n > 300 {
		t.Errorf("%v allocations", n)
	}
}

func TestVerifyTriesAreBounded(t *testing.T) {
	// The worst case: every intermediate has the name of every other's issuer, and
	// only one verifies in each round.
	ca := testpki.MustCA(t)
	root := ca
	var presented []*x509.Certificate
	for range MaxIntermediates {
		ca = testpki.MustIntermediate(t, ca, testpki.RawSubject(root.Cert.RawSubject))
		presented = append(presented, ca.Cert)
	}
	leaf := testpki.MustIssue(t, ca)
	permute := [][]int{{0, 1, 2, 3, 4, 5, 6, 7}, {7, 6, 5, 4, 3, 2, 1, 0}, {4, 1, 7, 2, 0, 6, 3, 5}}
	for _, order := range permute {
		pool := NewTrustPool(root.Pool())
		work := watch(pool)
		var mixed []*x509.Certificate
		for _, i := range order {
			mixed = append(mixed, presented[i])
		}
		mustVerify(t, pool, leaf, mixed...)
		if most := 36 + 1; work.calls > most {
			t.Errorf("order %v: %d verifications, want at most %d", order, work.calls, most)
		}
	}
}

func TestVerifyPlainCaseWorksOnce(t *testing.T) {
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root)
	pool := NewTrustPool(root.Pool())
	for i, test := range []struct {
		leaf      *testpki.Leaf
		presented []*x509.Certificate
		calls     int
	}{
		{testpki.MustIssue(t, root), nil, 1},
		{testpki.MustIssue(t, sub), []*x509.Certificate{sub.Cert}, 2},
		{testpki.MustIssue(t, sub), []*x509.Certificate{sub.Cert}, 1},
		{testpki.MustIssue(t, sub), []*x509.Certificate{sub.Cert, sub.Cert}, 1},
		{testpki.MustIssue(t, sub), []*x509.Certificate{sub.Cert, root.Cert}, 2},
	} {
		work := watch(pool)
		mustVerify(t, pool, test.leaf, test.presented...)
		if work.calls != test.calls {
			t.Errorf("%d: %d verifications, want %d", i, work.calls, test.calls)
		}
		// Not the root's: as an intermediate it would verify sub twice.
		if !work.only(sub) {
			t.Errorf("%d: another key than that of the intermediate was at hand", i)
		}
	}
}

func TestVerifyRemembersNoMoreThanItMay(t *testing.T) {
	root := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, root)
	pool := NewTrustPool(root.Pool())
	for range maxKnownCAs + 5 {
		mustVerify(t, pool, leaf, testpki.MustIntermediate(t, root).Cert)
	}
	if n := len(*pool.known.Load()); n != maxKnownCAs {
		t.Errorf("%d intermediates remembered, want %d", n, maxKnownCAs)
	}
}

func TestVerifyRemembersNoVariants(t *testing.T) {
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root)
	leaf := testpki.MustIssue(t, sub)
	pool := NewTrustPool(root.Pool())
	for range 2 {
		for _, variant := range testpki.Reencoded(t, sub.Cert) {
			mustVerify(t, pool, leaf, variant)
		}
	}
	if n := len(*pool.known.Load()); n != 1 {
		t.Errorf("%d intermediates remembered, want one", n)
	}

	// One with an invalid signature does not replace the known one, whether it comes
	// first or alone.
	tampered := slices.Clone(sub.Cert.Raw)
	tampered[len(tampered)-1] ^= 1
	forged, err := x509.ParseCertificate(tampered)
	if err != nil {
		t.Fatal(err)
	}
	for _, pool := range []*TrustPool{pool, NewTrustPool(root.Pool())} {
		mustVerify(t, pool, leaf, forged, sub.Cert)
		mustNotVerify(t, pool, leaf, "unknown authority", forged)
	}
}

func TestVerifyRememberedIntermediate(t *testing.T) {
	root := testpki.MustCA(t)
	expiry := now.Add(time.Hour).Truncate(time.Second)
	sub := testpki.MustIntermediate(t, root, testpki.Validity(now.Add(-time.Hour), expiry))
	leaf := testpki.MustIssue(t, sub)
	pool := NewTrustPool(root.Pool())
	mustVerify(t, pool, leaf, sub.Cert)

	mustNotVerify(t, pool, leaf, "unknown authority") // not presented
	if _, err := pool.Verify(leaf.Cert, []*x509.Certificate{sub.Cert}, expiry); err != nil {
		t.Errorf("at its last moment: %v", err)
	}
	_, err := pool.Verify(leaf.Cert, []*x509.Certificate{sub.Cert}, expiry.Add(time.Second))
	if err == nil || !strings.Contains(err.Error(), `presented certificate "Test Intermediate CA": it expired at `) {
		t.Errorf("after its last moment: %v", err)
	}
	if _, err := pool.Verify(leaf.Cert, []*x509.Certificate{sub.Cert}, now.Add(-2*time.Hour)); err == nil {
		t.Error("a remembered intermediate precedes its validity")
	}

	twin := testpki.MustIntermediate(t, testpki.MustCA(t), testpki.Key(sub.Key))
	mustNotVerify(t, NewTrustPool(testpki.MustCA(t).Pool()), leaf, "unknown authority", sub.Cert)
	mustNotVerify(t, pool, leaf, "unknown authority", twin.Cert)
}

// TestVerifyUsesNoHugeKey tests that a CA with a key that takes seconds is not used, as a
// CA below an anchor may issue and a proxy may forward it.
func TestVerifyUsesNoHugeKey(t *testing.T) {
	root := testpki.MustCA(t)
	huge := testpki.MustHugeRSA(t, maxRSABits+8)
	pool := NewTrustPool(root.Pool(), root.Cert)
	work := watch(pool)
	mustNotVerify(t, pool, testpki.MustSelfSigned(t), "too large", huge)
	if work.calls != 1 {
		t.Errorf("%d verifications, want one, of the leaf", work.calls)
	}
}
