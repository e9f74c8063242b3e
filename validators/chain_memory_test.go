package validators

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestVerifyAfterRenewalAbove_P0 tests that a pool which remembers a CA, but not the
// renewed certificate of the CA above, verifies what is below in any order.
func TestVerifyAfterRenewalAbove_P0(t *testing.T) {
	root := testpki.MustCA(t)
	a := testpki.MustIntermediate(t, root, testpki.CommonName("A"))
	b := testpki.MustIntermediate(t, a, testpki.CommonName("B"))
	c := testpki.MustIntermediate(t, b, testpki.CommonName("C"))
	d := testpki.MustIntermediate(t, c, testpki.CommonName("D"))
	renewed := testpki.MustIntermediate(t, root, testpki.CommonName("A"), testpki.Key(a.Key))
	first, last := testpki.MustIssue(t, b), testpki.MustIssue(t, d)
	permutations([]*x509.Certificate{renewed.Cert, b.Cert, c.Cert, d.Cert}, func(presented []*x509.Certificate) {
		pool := NewTrustPool(root.Pool())
		mustVerify(t, pool, first, b.Cert, a.Cert)
		for range 2 {
			mustVerify(t, pool, last, presented...)
		}
	})
}

// TestVerifyMoreCAsThanRemembered_P0 tests a PKI with more CAs than a pool remembers:
// what it happens to remember changes no verdict, whatever the order.
func TestVerifyMoreCAsThanRemembered_P0(t *testing.T) {
	root := testpki.MustCA(t)
	var leaves []*testpki.Leaf
	for i := range 4 {
		policy := testpki.MustIntermediate(t, root, testpki.CommonName(fmt.Sprint("p", i)))
		for j := range 5 {
			region := testpki.MustIntermediate(t, policy, testpki.CommonName(fmt.Sprint("r", i, j)))
			for k := range 4 {
				leaves = append(leaves, testpki.MustIssue(t, testpki.MustIntermediate(t, region, testpki.CommonName(fmt.Sprint("i", i, j, k)))))
			}
		}
	}
	if cas := 4 + 4*5 + len(leaves); cas <= maxKnownCAs {
		t.Fatalf("only %d CAs", cas)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for name, order := range map[string]func([]*x509.Certificate){
		"usual":    func([]*x509.Certificate) {},
		"top down": slices.Reverse[[]*x509.Certificate],
		"random": func(certs []*x509.Certificate) {
			random.Shuffle(len(certs), func(i, j int) { certs[i], certs[j] = certs[j], certs[i] })
		},
	} {
		pool, refused := NewTrustPool(root.Pool()), 0
		for range 1000 {
			leaf := leaves[random.IntN(len(leaves))]
			presented := slices.Clone(leaf.Chain)
			order(presented)
			if _, err := pool.Verify(leaf.Cert, presented, now); err != nil {
				refused++
			}
		}
		if refused > 0 {
			t.Errorf("%s order: %d of 1000 chains are refused", name, refused)
		}
	}
}

// TestVerifyTakesTheSecondPathOfAnIssuer_P0 tests a CA below one that has verified by a
// path which does not let it issue, and then gets another path.
func TestVerifyTakesTheSecondPathOfAnIssuer_P0(t *testing.T) {
	oldRoot := testpki.MustCA(t, testpki.CommonName("Old"), testpki.MaxPathLen(0))
	newRoot := testpki.MustCA(t, testpki.CommonName("New"))
	cross := testpki.MustIntermediate(t, newRoot, testpki.RawSubject(oldRoot.Cert.RawSubject), testpki.Key(oldRoot.Key))
	one := testpki.MustIntermediate(t, oldRoot, testpki.CommonName("One"))
	two := testpki.MustIntermediate(t, one, testpki.CommonName("Two"))
	leaf := testpki.MustIssue(t, two)
	anchors := oldRoot.Pool()
	anchors.AddCert(newRoot.Cert)
	permutations([]*x509.Certificate{cross.Cert, one.Cert, two.Cert}, func(presented []*x509.Certificate) {
		pool := NewTrustPool(anchors)
		for range 2 {
			mustVerify(t, pool, leaf, presented...)
		}
	})
}

// TestVerifyHostileBesideRememberedOnes_P0 tests what a stranger can cost a pool that
// remembers some of the CAs whose names the stranger uses.
func TestVerifyHostileBesideRememberedOnes_P0(t *testing.T) {
	root := testpki.MustCA(t)
	var genuine []*testpki.CA
	for ca := root; len(genuine) < 4; genuine = append(genuine, ca) {
		ca = testpki.MustIntermediate(t, ca, testpki.CommonName(fmt.Sprint(len(genuine))))
	}
	first := testpki.MustIssue(t, genuine[1])
	leaf, hostile := hostileChain(t, genuine[1], MaxIntermediates-len(genuine))
	var presented []*x509.Certificate
	for _, ca := range genuine {
		presented = append(presented, ca.Cert)
	}
	permutations(presented, func(presented []*x509.Certificate) {
		for _, presented := range [][]*x509.Certificate{slices.Concat(presented, hostile), slices.Concat(hostile, presented)} {
			pool := NewTrustPool(root.Pool())
			mustVerify(t, pool, first, first.Chain...)
			work := watch(pool)
			mustNotVerify(t, pool, leaf, "unknown authority", presented...)
			// The two others verify, so each hostile one is tried at most three times.
			if most := 3*len(hostile) + 2 + 1 + 1; work.calls > most {
				t.Fatalf("%d verifications, want at most %d", work.calls, most)
			}
			if !work.only(genuine...) {
				t.Fatal("the key of a presented certificate that had not verified was used")
			}
		}
	})
}

// TestVerifyReturnsChainsAboveASelfIssuedAnchor tests that a renewed CA which its
// predecessor has certified, both in the pool, has a chain to either.
func TestVerifyReturnsChainsAboveASelfIssuedAnchor(t *testing.T) {
	former := testpki.MustCA(t)
	renewed := testpki.MustIntermediate(t, former, testpki.RawSubject(former.Cert.RawSubject))
	anchors := former.Pool()
	anchors.AddCert(renewed.Cert)
	pool, leaf := NewTrustPool(anchors, former.Cert, renewed.Cert), testpki.MustIssue(t, renewed)
	for range 2 {
		chains, err := pool.Verify(leaf.Cert, []*x509.Certificate{renewed.Cert, former.Cert}, now)
		if err != nil || len(chains) != 2 {
			t.Errorf("%d chains, want 2; %v", len(chains), err)
		}
	}
}
