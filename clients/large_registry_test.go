package clients

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// heap returns how many octets are in use.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // what a cleanup has let go
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// manyRecords are records with two credentials each. strings is the length of the
// strings in one of them.
var manyRecords = map[string]func(i int) (record string, strings int){
	"subject and thumbprint": func(i int) (string, int) {
		values := []any{fmt.Sprintf("partner-%07d", i), "api1 telemetry", fmt.Sprintf("CN=partner-%07d,OU=production,O=company", i), fmt.Sprintf("%064x", i+1)}
		return fmt.Sprintf(`{"client_id":"%s","scope":"%s","tls_client_auth_subject_dn":"%s","x509_thumbprints":"%s"}`, values...), len(fmt.Sprint(values...)) - 3
	},
	"name and public key": func(i int) (string, int) {
		values := []any{fmt.Sprintf("partner-%07d", i), "api1 telemetry", fmt.Sprintf("spiffe://prod.example/ns/n%d/sa/s%07d", i%100, i), fmt.Sprintf("%064x", i+1)}
		return fmt.Sprintf(`{"client_id":"%s","scope":"%s","tls_client_auth_san_uri":"%s","x509_public_keys":"%s"}`, values...), len(fmt.Sprint(values...)) - 3
	},
}

// manyClients returns a registry of that many clients.
func manyClients(tb testing.TB, count int, record func(int) (string, int)) (r *Registry, stringBytes int) {
	tb.Helper()
	from := NewOrigin("file:many.jsonl", 1)
	e := NewRegistry().Edit()
	for i := range count {
		text, size := record(i)
		client, _, err := New([]byte(text), from, plainFiles{}, time.Now())
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := e.Add(client); err != nil {
			tb.Fatal(err)
		}
		stringBytes += size
	}
	return e.Registry(), stringBytes
}

// TestClientsAreSmall: a client needs less than 400 bytes more than the strings of its
// record.
func TestClientsAreSmall(t *testing.T) {
	const count, most = 100_000, 400
	for name, record := range manyRecords {
		before := heap()
		r, stringBytes := manyClients(t, count, record)
		used := heap() - before - int64(stringBytes)
		runtime.KeepAlive(r)
		t.Logf("%s: %d bytes a client", name, used/count)
		if used/count >= most {
			t.Errorf("%s: a client needs %d bytes beyond its strings, want less than %d", name, used/count, most)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for name, record := range manyRecords {
		for _, count := range []int{100_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(name, " ", "_"), count), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					manyClients(b, count, record)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/client")
			})
		}
	}
}

// BenchmarkOneClient measures the change of one client, and look-ups, in registries of
// different sizes. They should differ by the logarithm of the size only.
func BenchmarkOneClient(b *testing.B) {
	leaf := testpki.MustSelfSigned(b, testpki.CommonName("stranger"), testpki.URIs("spiffe://prod.example/ns/n0/sa/s0000000"))
	sum := sha256.Sum256(leaf.Cert.Raw)
	for name, record := range manyRecords {
		for _, count := range []int{10, 1000, 100_000, 1_000_000} {
			r, _ := manyClients(b, count, record)
			bench := func(what string, measured func(i int)) {
				b.Run(fmt.Sprintf("%s/%s/%d", what, strings.ReplaceAll(name, " ", "_"), count), func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						measured(i)
					}
				})
			}
			from := NewOrigin("file:many.jsonl", 1)
			bench("change", func(i int) {
				text, _ := record(i * 7919 % count)
				client, _, err := New([]byte(text), from, plainFiles{}, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				e := r.Edit()
				e.Remove(r.Client(client.ID))
				if _, err := e.Add(client); err != nil {
					b.Fatal(err)
				}
				r = e.Registry()
			})
			bench("pins", func(int) { r.Pins(leaf.Cert, sum) })
			bench("names", func(int) { r.Names(leaf.Cert) })
			bench("near", func(int) { r.NearSubject("CN=partner-0000x07,OU=production,O=company") })
			bench("client", func(i int) { r.Client("partner-0000007") })
		}
	}
}
