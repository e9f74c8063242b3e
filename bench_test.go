//go:build unix

package mtlsauth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// All benchmarks here read CPU time, which unlike elapsed time does not count
// what other processes do. scripts/bench runs them; see docs/benchmarks.md.

// cpuTime is what this process has spent so far, in user mode and in the system.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure reports what one operation costs.
func measure(b *testing.B, operation func(i int)) {
	b.ReportAllocs()
	start := cpuTime(b)
	for i := 0; b.Loop(); i++ {
		operation(i)
	}
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// contender is one of several ways to do the same thing. A turn does it some
// times and returns the CPU time of one.
type contender struct {
	name string
	turn func() time.Duration
}

// repeated is a contender in this process. Its turns take some milliseconds.
func repeated(b *testing.B, name string, operation func(i int)) contender {
	done := 0
	turn := func(times int) time.Duration {
		start := cpuTime(b)
		for range times {
			operation(done)
			done++
		}
		return cpuTime(b) - start
	}
	times := 1
	for turn(times) < 5*time.Millisecond {
		times *= 2
	}
	return contender{name, func() time.Duration { return turn(times) / time.Duration(times) }}
}

// compare lets the contenders take turns, in random order so that what else
// goes on in the machine hits all of them alike. One iteration is a round of so
// many turns each. Reported is the median over the rounds of the CPU time of
// each contender, and of the ratio of the first to each of the others.
func compare(b *testing.B, turns int, contenders ...contender) {
	spent := make([][]float64, len(contenders))
	ratios := make([][]float64, len(contenders))
	for b.Loop() {
		sums := make([]time.Duration, len(contenders))
		for range turns {
			for _, i := range mathrand.Perm(len(contenders)) {
				sums[i] += contenders[i].turn()
			}
		}
		for i, sum := range sums {
			spent[i] = append(spent[i], float64(sum.Nanoseconds())/float64(turns))
			ratios[i] = append(ratios[i], float64(sums[0])/float64(sum))
		}
	}
	b.ReportMetric(0, "ns/op") // how long a round takes says nothing
	for i, contender := range contenders {
		b.ReportMetric(median(spent[i]), contender.name+"-cpu-ns")
		if i > 0 {
			b.ReportMetric(median(ratios[i]), "vs-"+contender.name)
			b.ReportMetric(slices.Min(ratios[i]), "vs-"+contender.name+"-min")
			b.ReportMetric(slices.Max(ratios[i]), "vs-"+contender.name+"-max")
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// benchRealm is a realm of which half the clients are pinned and half are
// known by their subject, with certificates of some of each kind.
type benchRealm struct {
	auth        *authenticator
	roots       *x509.CertPool
	pinned, pki [][]*x509.Certificate
}

// newBenchRealm registers so many clients. Up to 64 certificates of each kind
// are real, so that not everything stays in the processor's caches.
func newBenchRealm(b *testing.B, size int) *benchRealm {
	root := testpki.MustCA(b)
	ca := testpki.MustIntermediate(b, root)
	realm := &benchRealm{roots: root.Pool()}
	list := make([]*clients.Client, 0, size)
	for i := range size / 2 {
		name := fmt.Sprintf("client %d", i)
		var sum [32]byte
		_, _ = rand.Read(sum[:])
		if i < 64 {
			pinned := testpki.MustSelfSigned(b, testpki.CommonName(name))
			realm.pinned = append(realm.pinned, pinned.Presented())
			realm.pki = append(realm.pki, testpki.MustIssue(b, ca, testpki.CommonName(name)).Presented())
			sum, _ = validators.ThumbprintOf(pinned.Cert.Raw).SHA256()
		}
		for _, record := range []clients.Record{
			{ClientID: fmt.Sprintf("pinned-%d", i), Scope: "api1", Thumbprints: clients.Strings{hex.EncodeToString(sum[:])}},
			{ClientID: fmt.Sprintf("pki-%d", i), Scope: "api1", SubjectDN: clients.Strings{"CN=" + name}},
		} {
			client, _, err := clients.New(record, time.Now())
			if err != nil {
				b.Fatal(err)
			}
			list = append(list, client)
		}
	}
	registry, err := clients.NewRegistry(list)
	if err != nil {
		b.Fatal(err)
	}
	realm.auth = newAuthenticator(registry, validators.NewTrustPool(realm.roots), time.Now)
	return realm
}

// authenticate finds out whose the i-th certificate is, which is at first sight
// unless it is to be remembered.
func (realm *benchRealm) authenticate(b *testing.B, certificates [][]*x509.Certificate, i int, remember bool) {
	presented := certificates[i%len(certificates)]
	if !remember {
		for v := range realm.auth.accepted.All() {
			v.until = time.Time{}
		}
	}
	_, refusal, remembered := realm.auth.authenticate(presented, "")
	if refusal != nil || remembered != remember {
		b.Fatalf("refusal %v, remembered %t", refusal, remembered)
	}
}

// BenchmarkAuthenticate is what it costs to find out whose a certificate is, in
// realms of several sizes.
func BenchmarkAuthenticate(b *testing.B) {
	for _, size := range []int{10, 1_000, 100_000} {
		realm := newBenchRealm(b, size)
		b.Run(fmt.Sprintf("remembered/clients=%d", size), func(b *testing.B) {
			for i := range realm.pki {
				realm.authenticate(b, realm.pki, i, false)
			}
			measure(b, func(i int) { realm.authenticate(b, realm.pki, i, true) })
		})
		b.Run(fmt.Sprintf("first_sight_pinned/clients=%d", size), func(b *testing.B) {
			measure(b, func(i int) { realm.authenticate(b, realm.pinned, i, false) })
		})
		b.Run(fmt.Sprintf("first_sight_pki/clients=%d", size), func(b *testing.B) {
			measure(b, func(i int) { realm.authenticate(b, realm.pki, i, false) })
		})
	}
}

// BenchmarkCompareFirstSight compares the first sight of a PKI certificate with
// the verification of the same chain by crypto/x509 alone, which like a TLS
// server puts the presented intermediates into a pool first.
func BenchmarkCompareFirstSight(b *testing.B) {
	realm := newBenchRealm(b, 1000)
	compare(b, 20,
		repeated(b, "mtls_auth", func(i int) { realm.authenticate(b, realm.pki, i, false) }),
		repeated(b, "x509_verify", func(i int) {
			presented := realm.pki[i%len(realm.pki)]
			intermediates := x509.NewCertPool()
			for _, cert := range presented[1:] {
				intermediates.AddCert(cert)
			}
			_, err := presented[0].Verify(x509.VerifyOptions{
				Roots: realm.roots, Intermediates: intermediates, CurrentTime: time.Now(),
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			})
			if err != nil {
				b.Fatal(err)
			}
		}),
	)
}

// BenchmarkCompareMint compares issuing a token with the bare signature over
// the same input with the same key.
func BenchmarkCompareMint(b *testing.B) {
	for _, alg := range keyring.Algorithms() {
		b.Run(string(alg), func(b *testing.B) {
			private, err := keyring.Generate(alg)
			if err != nil {
				b.Fatal(err)
			}
			key, err := keyring.NewKey(private, alg, time.Time{})
			if err != nil {
				b.Fatal(err)
			}
			issuer, err := tokens.NewIssuer(tokens.IssuerConfig{
				URL:       "https://auth.example.com",
				Resources: []tokens.Resource{{Name: "https://api.example.com", Scopes: []string{"api1"}}},
			}, keyring.Fixed(keyring.New(key)))
			if err != nil {
				b.Fatal(err)
			}
			claims, err := tokens.PrepareClaims(map[string]any{"tenant": "acme"})
			if err != nil {
				b.Fatal(err)
			}
			grant := &tokens.Grant{
				ClientID: "mtls.client", Scopes: []string{"api1"}, Claims: claims,
				Thumbprint: validators.X5tS256([32]byte{1}), NotAfter: time.Now().Add(24 * time.Hour),
			}
			request := tokens.TokenRequest{ClientID: "mtls.client", GrantType: "client_credentials", Scope: "api1"}
			mint := func() string {
				token, failure := issuer.Mint(b.Context(), grant, request)
				if failure != nil {
					b.Fatal(failure)
				}
				return token.AccessToken
			}
			input := mint()
			input = input[:strings.LastIndex(input, ".")]
			compare(b, 20,
				repeated(b, "mint", func(int) { mint() }),
				repeated(b, "signature", func(int) {
					if err := bareSignature(private, alg, input); err != nil {
						b.Fatal(err)
					}
				}),
			)
		})
	}
}

func bareSignature(private crypto.Signer, alg keyring.Algorithm, input string) error {
	if alg == keyring.EdDSA {
		_, err := private.Sign(rand.Reader, []byte(input), crypto.Hash(0))
		return err
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[string(alg[2:])]
	hasher := hash.New()
	hasher.Write([]byte(input))
	var opts crypto.SignerOpts = hash
	if strings.HasPrefix(string(alg), "PS") {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	_, err := private.Sign(rand.Reader, hasher.Sum(nil), opts)
	return err
}

// BenchmarkHandler is mtls_auth without network and proxy, and the same request
// without it. Caddy gives every request a fresh context, so both make one.
func BenchmarkHandler(b *testing.B) {
	leaf := testpki.MustSelfSigned(b)
	plain, token, certificate := benchHandler(b, leaf, new(Handler)), benchHandler(b, leaf, &Handler{ForwardToken: &ForwardToken{Audience: "urn:bench"}}), benchHandler(b, leaf, &Handler{ForwardCertificate: true})
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	server, target, w := new(caddyhttp.Server), &url.URL{Path: "/v1/invoices"}, httptest.NewRecorder()
	state := &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: leaf.Presented()}
	for _, bench := range []struct {
		name  string
		serve func(*http.Request) error
	}{
		{"nothing", func(r *http.Request) error { return next.ServeHTTP(w, r) }},
		{"mtls_auth", func(r *http.Request) error { return plain.ServeHTTP(w, r, next) }},
		{"forward_token", func(r *http.Request) error { return token.ServeHTTP(w, r, next) }},
		{"forward_certificate", func(r *http.Request) error { return certificate.ServeHTTP(w, r, next) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			measure(b, func(int) {
				r := &http.Request{
					Method: http.MethodGet, URL: target, Host: "localhost", RemoteAddr: "127.0.0.1:12345", TLS: state,
					Header: http.Header{
						"Accept":          {"application/json"},
						"Accept-Encoding": {"gzip"},
						"Content-Type":    {"application/json"},
						"User-Agent":      {"Go-http-client/1.1"},
						"X-Request-Id":    {"4711"},
					},
				}
				if err := bench.serve(caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

func benchHandler(b *testing.B, leaf *testpki.Leaf, h *Handler) *Handler {
	private, err := keyring.Generate(keyring.ES256)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		b.Fatal(err)
	}
	key := writeTemp(b, b.TempDir(), "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	app := &App{Realms: map[string]*Realm{defaultRealm: {
		Clients: []clients.Record{{
			ClientID: "client", Thumbprints: clients.Strings{validators.ThumbprintOf(leaf.Cert.Raw).String()},
		}},
		Issuer: &Issuer{URL: "https://auth.example.com", SigningKey: key},
	}}}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		AppsRaw: caddy.ModuleMap{appID: caddyconfig.JSON(app, nil)},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := h.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	return h
}
