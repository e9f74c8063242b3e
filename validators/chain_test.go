package validators

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// now is inside the validity of what testpki makes by default.
var now = time.Now()

func mustVerify(t *testing.T, pool *TrustPool, leaf *testpki.Leaf, presented ...*x509.Certificate) [][]*x509.Certificate {
	t.Helper()
	chains, err := pool.Verify(leaf.Cert, presented, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range chains {
		if len(chain) < 2 || chain[0] != leaf.Cert {
			t.Fatalf("a chain of %d certificates, want the leaf and what is above it", len(chain))
		}
	}
	return chains
}

func mustNotVerify(t *testing.T, pool *TrustPool, leaf *testpki.Leaf, why string, presented ...*x509.Certificate) {
	t.Helper()
	chains, err := pool.Verify(leaf.Cert, presented, now)
	if err == nil {
		t.Fatalf("verified, with %d chains", len(chains))
	}
	if !strings.Contains(err.Error(), why) {
		t.Errorf("error %q does not say %q", err, why)
	}
	if strings.Contains(err.Error(), "x509") {
		t.Errorf("error %q has words of the library", err)
	}
}

func TestVerify(t *testing.T) {
	root := testpki.MustCA(t)
	one := testpki.MustIntermediate(t, root, testpki.CommonName("One"))
	two := testpki.MustIntermediate(t, one, testpki.CommonName("Two"))
	three := testpki.MustIntermediate(t, two, testpki.CommonName("Three"))
	pool := NewTrustPool(root.Pool())

	direct := testpki.MustIssue(t, root)
	mustVerify(t, pool, direct)
	mustVerify(t, pool, direct, root.Cert, root.Cert, direct.Cert)

	deep := testpki.MustIssue(t, three)
	mustNotVerify(t, pool, deep, "unknown authority; its issuer is not in the trust pool, nor among the 0 certificates that were sent after it")
	mustNotVerify(t, NewTrustPool(root.Pool()), deep, "nor among the 2 certificates", two.Cert, one.Cert)
	mustNotVerify(t, pool, deep, `presented certificate "Two"`, three.Cert, two.Cert)
	permutations([]*x509.Certificate{one.Cert, two.Cert, three.Cert, root.Cert, deep.Cert}, func(presented []*x509.Certificate) {
		for _, pool := range []*TrustPool{NewTrustPool(root.Pool()), pool} {
			chains := mustVerify(t, pool, deep, presented...)
			if len(chains) != 1 || len(chains[0]) != 5 || chains[0][4] != root.Cert {
				t.Fatalf("%d chains, want the one of 5 certificates", len(chains))
			}
		}
	})
}

func permutations(certs []*x509.Certificate, f func([]*x509.Certificate)) {
	var walk func(int)
	walk = func(n int) {
		if n == len(certs) {
			f(certs)
			return
		}
		for i := n; i < len(certs); i++ {
			certs[n], certs[i] = certs[i], certs[n]
			walk(n + 1)
			certs[n], certs[i] = certs[i], certs[n]
		}
	}
	walk(0)
}

func TestVerifyWithoutPoolTrustsNobody(t *testing.T) {
	root := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, root)
	var none *TrustPool
	mustNotVerify(t, none, leaf, "no trust pool", root.Cert)
	mustNotVerify(t, &TrustPool{}, leaf, "no trust pool", root.Cert)
	mustNotVerify(t, NewTrustPool(nil), leaf, "no trust pool", root.Cert)
	mustNotVerify(t, NewTrustPool(x509.NewCertPool()), leaf, "unknown authority", root.Cert)
	if _, err := NewTrustPool(root.Pool()).Verify(leaf.Cert, nil, time.Time{}); err == nil {
		t.Error("verified at no time, which x509 takes for the system's")
	}
}

func TestNewTrustPoolCopiesThePool(t *testing.T) {
	anchors := x509.NewCertPool()
	pool := NewTrustPool(anchors)
	root := testpki.MustCA(t)
	anchors.AddCert(root.Cert)
	mustNotVerify(t, pool, testpki.MustIssue(t, root), "unknown authority")
}

func TestVerifyLeafInThePoolHasNoChain(t *testing.T) {
	root := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, root)
	anchors := root.Pool()
	anchors.AddCert(leaf.Cert)
	mustNotVerify(t, NewTrustPool(anchors), leaf, "pinned credential", root.Cert)

	selfSigned := testpki.MustSelfSigned(t)
	anchors.AddCert(selfSigned.Cert)
	mustNotVerify(t, NewTrustPool(anchors), selfSigned, "pinned credential", selfSigned.Cert)
}

func TestVerifyIntermediateAsAnchor(t *testing.T) {
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root)
	leaf := testpki.MustIssue(t, sub)
	onlySub := sub.Pool()
	mustVerify(t, NewTrustPool(onlySub), leaf)
	mustVerify(t, NewTrustPool(onlySub), leaf, sub.Cert, root.Cert)

	both := sub.Pool()
	both.AddCert(root.Cert)
	if chains := mustVerify(t, NewTrustPool(both), leaf, sub.Cert, root.Cert); len(chains) != 2 {
		t.Errorf("%d chains, want one to each anchor", len(chains))
	}
}

func TestVerifyCrossSigned(t *testing.T) {
	oldRoot := testpki.MustCA(t, testpki.CommonName("Old Root"))
	newRoot := testpki.MustCA(t, testpki.CommonName("New Root"))
	cross := testpki.MustIntermediate(t, oldRoot, testpki.RawSubject(newRoot.Cert.RawSubject), testpki.Key(newRoot.Key))
	sub := testpki.MustIntermediate(t, newRoot, testpki.CommonName("Sub"))
	subByOld := testpki.MustIntermediate(t, oldRoot, testpki.CommonName("Sub"), testpki.Key(sub.Key))
	leaf := testpki.MustIssue(t, sub)
	both := oldRoot.Pool()
	both.AddCert(newRoot.Cert)
	permutations([]*x509.Certificate{cross.Cert, sub.Cert, subByOld.Cert, newRoot.Cert}, func(presented []*x509.Certificate) {
		if chains := mustVerify(t, NewTrustPool(oldRoot.Pool()), leaf, presented...); len(chains) != 2 {
			t.Fatalf("%d chains, want one by each certificate of Sub", len(chains))
		}
		if chains := mustVerify(t, NewTrustPool(newRoot.Pool()), leaf, presented...); len(chains) != 1 {
			t.Fatalf("%d chains, want the one to the new root", len(chains))
		}
		if chains := mustVerify(t, NewTrustPool(both), leaf, presented...); len(chains) != 3 {
			t.Fatalf("%d chains, want three", len(chains))
		}
	})
}

func TestVerifyLoops(t *testing.T) {
	root := testpki.MustCA(t)
	a := testpki.MustCA(t, testpki.CommonName("A"))
	b := testpki.MustCA(t, testpki.CommonName("B"))
	signs := func(issuer, subject *testpki.CA) *x509.Certificate {
		return testpki.MustIntermediate(t, issuer, testpki.RawSubject(subject.Cert.RawSubject), testpki.Key(subject.Key)).Cert
	}
	leaf := testpki.MustIssue(t, a)
	loop := []*x509.Certificate{signs(a, b), signs(b, a), signs(a, a), signs(b, b)}
	mustNotVerify(t, NewTrustPool(root.Pool()), leaf, "unknown authority", loop...)
	permutations(append(loop, signs(root, a)), func(presented []*x509.Certificate) {
		mustVerify(t, NewTrustPool(root.Pool()), leaf, presented...)
	})
}

func TestOnlyTheLeafIdentifies_B5(t *testing.T) {
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root)
	victim := testpki.MustIssue(t, sub, testpki.CommonName("victim"))
	pool := NewTrustPool(root.Pool())
	mustVerify(t, pool, victim, sub.Cert) // the pool now knows sub

	attacker := testpki.MustSelfSigned(t, testpki.CommonName("victim"))
	mustNotVerify(t, pool, attacker, "unknown authority", victim.Cert, sub.Cert, root.Cert)
	mustNotVerify(t, pool, attacker, "unknown authority", victim.Presented()...)

	sameIssuer := testpki.MustSelfSigned(t, testpki.RawSubject(root.Cert.RawSubject))
	mustNotVerify(t, pool, sameIssuer, "unknown authority", victim.Cert, sub.Cert, root.Cert)

	// The victim's certificate is not a CA.
	forged := testpki.MustIssue(t, &testpki.CA{Cert: victim.Cert, Key: victim.Key})
	mustNotVerify(t, pool, forged, "not a CA", victim.Cert, sub.Cert)

	other := testpki.MustIssue(t, root)
	mustVerify(t, pool, other, victim.Cert, sub.Cert)
}

func TestIssuedByTellsCAsWithOneSubjectApart_B9(t *testing.T) {
	first, second := testpki.MustCA(t, testpki.CommonName("First")), testpki.MustCA(t, testpki.CommonName("Second"))
	sub := testpki.MustIntermediate(t, first)
	leaf, twin := testpki.MustIssue(t, sub), testpki.MustIssue(t, second)
	if !bytes.Equal(leaf.Cert.RawSubject, twin.Cert.RawSubject) {
		t.Fatal("the subjects differ")
	}
	anchors := first.Pool()
	anchors.AddCert(second.Cert)
	pool := NewTrustPool(anchors)
	chain, twinChain := mustVerify(t, pool, leaf, sub.Cert)[0], mustVerify(t, pool, twin)[0]

	for name, pin := range map[string][32]byte{
		"anchor":                  sha256.Sum256(first.Cert.Raw),
		"anchor's key":            sha256.Sum256(first.Cert.RawSubjectPublicKeyInfo),
		"intermediate":            sha256.Sum256(sub.Cert.Raw),
		"intermediate's key":      sha256.Sum256(sub.Cert.RawSubjectPublicKeyInfo),
		"one of several, in last": sha256.Sum256(first.Cert.Raw),
	} {
		pins := [][32]byte{{}, pin}
		if !IssuedBy(chain, pins) {
			t.Errorf("%s: the certificate it issued is refused", name)
		}
		if IssuedBy(twinChain, pins) {
			t.Errorf("%s: another CA's certificate of that subject is admitted", name)
		}
	}
	for name, pin := range map[string][32]byte{
		"leaf":          sha256.Sum256(leaf.Cert.Raw),
		"leaf's key":    sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo),
		"issuer's name": sha256.Sum256(leaf.Cert.RawIssuer),
	} {
		if IssuedBy(chain, [][32]byte{pin}) {
			t.Errorf("the %s counts as a CA above the leaf", name)
		}
	}
	if !IssuedBy(chain, nil) || !IssuedBy(nil, nil) || IssuedBy(nil, [][32]byte{{}}) {
		t.Error("no pins must admit any chain, and no chain must satisfy no pin")
	}
}

func TestChainExpiry(t *testing.T) {
	early, late := now.Add(time.Hour).Truncate(time.Second), now.Add(2*time.Hour)
	root := testpki.MustCA(t, testpki.Validity(now.Add(-time.Hour), early))
	leaf := testpki.MustIssue(t, root, testpki.Validity(now.Add(-time.Hour), late))
	for _, chain := range [][]*x509.Certificate{{leaf.Cert, root.Cert}, {root.Cert, leaf.Cert}} {
		if got := ChainExpiry(chain); !got.Equal(early) {
			t.Errorf("expiry %s, want the earliest, %s", got, early)
		}
	}
	if !ChainExpiry(nil).IsZero() {
		t.Error("no chain has an expiry")
	}
}

func TestNextValid(t *testing.T) {
	at := func(d time.Duration) time.Time { return now.Add(d).Truncate(time.Second) }
	from := func(d time.Duration) testpki.Option { return testpki.Validity(at(d), at(24*time.Hour)) }
	future := testpki.MustCA(t, from(4*time.Hour))
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root, from(2*time.Hour)).Cert
	later := testpki.MustIntermediate(t, root, from(3*time.Hour)).Cert
	leaf := testpki.MustIssue(t, root).Cert
	pool := NewTrustPool(root.Pool(), root.Cert, future.Cert)
	var none *TrustPool
	for name, test := range map[string]struct {
		pool      *TrustPool
		presented []*x509.Certificate
		now, want time.Time
	}{
		"all valid":        {NewTrustPool(root.Pool(), root.Cert), []*x509.Certificate{leaf}, now, time.Time{}},
		"an anchor":        {pool, []*x509.Certificate{leaf}, now, at(4 * time.Hour)},
		"the earliest":     {pool, []*x509.Certificate{leaf, later, sub}, now, at(2 * time.Hour)},
		"the next":         {pool, []*x509.Certificate{leaf, later, sub}, at(2 * time.Hour), at(3 * time.Hour)},
		"all have begun":   {pool, []*x509.Certificate{leaf, later, sub}, at(4 * time.Hour), time.Time{}},
		"the leaf":         {none, []*x509.Certificate{later}, now, at(3 * time.Hour)},
		"not considered":   {none, append(slices.Repeat([]*x509.Certificate{leaf}, 1+MaxIntermediates), sub), now, time.Time{}},
		"the last of them": {none, append(slices.Repeat([]*x509.Certificate{leaf}, MaxIntermediates), sub), now, at(2 * time.Hour)},
		"nothing":          {none, nil, now, time.Time{}},
	} {
		if got := test.pool.NextValid(test.presented, test.now); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestVerifyErrorIsOneBoundedLine(t *testing.T) {
	evil := "a\r\n{\"level\":\"info\"}\x00\x1b[31m\u202e" + strings.Repeat("x", 3000)
	root := testpki.MustCA(t, testpki.CommonName("evil\nroot\u202e"))
	fake := testpki.MustCA(t, testpki.RawSubject(root.Cert.RawSubject))
	leaf := testpki.MustIssue(t, fake, testpki.Subject(pkix.Name{CommonName: evil}))
	var presented []*x509.Certificate
	for range 20 {
		presented = append(presented, testpki.MustIntermediate(t, fake, testpki.CommonName(evil)).Cert)
	}
	_, err := NewTrustPool(root.Pool()).Verify(leaf.Cert, presented, now)
	if err == nil {
		t.Fatal("verified")
	}
	text := err.Error()
	if len(text) > maxChainErrorText+16 {
		t.Errorf("%d bytes", len(text))
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u202e' }); i >= 0 {
		t.Errorf("unescaped text in %q", text)
	}

	_, err = NewTrustPool(root.Pool()).Verify(leaf.Cert, slices.Repeat([]*x509.Certificate{leaf.Cert}, 20), now)
	if err == nil || !strings.Contains(err.Error(), "only the first 8 of 20") {
		t.Errorf("error %v does not say that certificates were left out", err)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	root := testpki.MustCA(t)
	pool := NewTrustPool(root.Pool())
	var leaves []*testpki.Leaf
	for range 4 {
		leaves = append(leaves, testpki.MustIssue(t, testpki.MustIntermediate(t, root)))
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			leaf := leaves[i%len(leaves)]
			if _, err := pool.Verify(leaf.Cert, leaf.Chain, now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(*pool.known.Load()); n != len(leaves) {
		t.Errorf("%d intermediates remembered, want %d", n, len(leaves))
	}
}
