package trust_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// poolRealm returns a realm with a trust pool and one client, identified by its
// subject.
func poolRealm(pool string) string {
	return "mtls {\n" + pool + "\nclient billing.partner {\nsubject CN=billing\n}\n}\n"
}

// clocked returns a trust pool that combines the sources with one that runs on the
// test's clock and trusts the rig's CA.
func clocked(t *testing.T, sources ...string) string {
	pool := "trust_pool combined {\nsource rig @DIR@/clients-ca.pem " + t.Name() + "\n"
	for _, source := range sources {
		pool += "source " + source + "\n"
	}
	return pool + "}"
}

// replace replaces a file with a complete new one.
func replace(r *rig.Rig, name string, content []byte) {
	r.T.Helper()
	fresh := r.Write(name+".new", content)
	if err := os.Rename(fresh, filepath.Join(r.Dir, name)); err != nil {
		r.T.Fatal(err)
	}
}

// poolSwaps counts how often a trust pool of the realm was replaced.
func poolSwaps(r *rig.Rig) int { return len(r.Logs.Said(poolChanged)) }

// poolLastSuccess returns when the trust pool was last read without an error,
// according to the metric. It needs AdminOn.
func poolLastSuccess(r *rig.Rig, t *testing.T) float64 {
	t.Helper()
	return rig.Series(t, rig.Metrics(r, t), "default")[`source_last_success_timestamp_seconds{source="trust_pool"}`]
}

const (
	poolComplaint = "reloading trust pool failed; keeping previous CAs"
	poolChanged   = "trust pool changed"
	poolMended    = "reloading trust pool works again"
)

// TestTrustPoolFile_C2 checks that a new pool decides the next request on an open
// connection, whether the file is rewritten in place or renamed, and whether the
// pool stands alone or is nested in another. Clients it does not trust are refused;
// clients it trusts are admitted although they were refused a moment ago.
func TestTrustPoolFile_C2(t *testing.T) {
	for name, pool := range map[string]string{
		"file":     "trust_pool file @DIR@/pool.pem",
		"combined": "trust_pool combined {\nsource file @DIR@/server-ca.pem\nsource combined {\nsource file @DIR@/pool.pem\n}\n}",
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t)
			r.Write("pool.pem", r.CA.PEM())
			before, after := r.Issue("billing"), r.IssueBy(r.OtherCA, "after", testpki.CommonName("billing"))
			r.Start(poolRealm(pool), rig.OneSite)
			old, fresh := make(map[string]*rig.Caller), make(map[string]*rig.Caller)
			for _, protocol := range rig.Protocols {
				old[protocol], fresh[protocol] = r.Caller(t, protocol, before), r.Caller(t, protocol, after)
			}
			check := func(admitted, refused map[string]*rig.Caller) {
				t.Helper()
				for _, protocol := range rig.Protocols {
					// both orders, because cached verdicts of either must be gone
					refused[protocol].Eventually(t, http.StatusUnauthorized)
					admitted[protocol].Eventually(t, http.StatusOK).WantClient(t, "billing.partner")
					r.WantReason(t, refused[protocol].Get("https://api.test/"), "certificate_untrusted")
				}
			}
			check(old, fresh)
			replace(r, "pool.pem", r.OtherCA.PEM())
			check(fresh, old)
			r.Write("pool.pem", r.CA.PEM()) // rewritten in place
			check(old, fresh)
			// with both CAs, the added one is trusted at once
			r.Write("pool.pem", append(r.CA.PEM(), r.OtherCA.PEM()...))
			for _, protocol := range rig.Protocols {
				fresh[protocol].Eventually(t, http.StatusOK)
				old[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK)
			}
			changes := r.Logs.All(func(entry rig.LogEntry) bool { return entry.Str("msg") == "trust pool changed" })
			if len(changes) != 3 || changes[0].Str("pool") != "trust_pool" || changes[0].Str("realm") != "default" {
				t.Errorf("logged changes: %v", changes)
			}
			for i, want := range []string{"[CN=Other CA] [CN=Clients CA]", "[CN=Clients CA] [CN=Other CA]", "[CN=Other CA] []"} {
				if i < len(changes) && fmt.Sprint(changes[i]["added"], " ", changes[i]["removed"]) != want {
					t.Errorf("change %d: added %v, removed %v, want %s", i, changes[i]["added"], changes[i]["removed"], want)
				}
			}
		})
	}
}

// TestTrustPoolFileOpenConnections_C2 checks that a new pool decides on connections
// that were already open.
func TestTrustPoolFileOpenConnections_C2(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		r := rig.New(t)
		r.Write("pool.pem", r.CA.PEM())
		billing := r.Issue("billing")
		r.Start(poolRealm("trust_pool file @DIR@/pool.pem"), rig.OneSite)
		c := r.Caller(t, protocol, billing)
		var open bool
		c.Get("https://api.test/", rig.Reused(&open)).WantStatus(t, http.StatusOK)
		replace(r, "pool.pem", r.OtherCA.PEM())
		c.Eventually(t, http.StatusUnauthorized)
		if c.Get("https://api.test/", rig.Reused(&open)).WantStatus(t, http.StatusUnauthorized); !open {
			t.Errorf("%s: the refused request went over another connection", protocol)
		}
	}
}

// TestBrokenTrustPoolFile_B4 checks that a broken file changes nothing, is logged
// once and shows in the metric. A repaired file takes effect.
func TestBrokenTrustPoolFile_B4(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	r.Write("pool.pem", r.OtherCA.PEM())
	signal := r.CA.PEM()
	r.Write("signal.pem", signal)
	billing := r.IssueBy(r.OtherCA, "billing")
	two := append(r.OtherCA.PEM(), r.ServerCA.PEM()...)
	r.AdminOn = true
	r.Start(poolRealm("trust_pool file @DIR@/pool.pem @DIR@/signal.pem\nshadow_trust_pool rig @DIR@/other-ca.pem "+t.Name()), rig.OneSite)
	c := r.Caller(t, "h2", billing)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	damagedAt := 1 + bytes.Count(r.OtherCA.PEM(), []byte("\n"))
	for _, test := range []struct {
		name    string
		content []byte // nil removes the file
		texts   []string
	}{
		{"half-written", two[:len(two)-100], []string{"pool.pem', line " + fmt.Sprint(damagedAt), "a PEM block is damaged, cut off or indented; copy it again"}},
		{"empty", []byte{}, []string{"pool.pem' has no PEM certificate; put the CA certificate there, in PEM"}},
		{"garbage", []byte("garbage\n"), []string{"pool.pem' has no PEM certificate; put the CA certificate there, in PEM"}},
		{"key", r.CA.KeyPEM(), []string{`pool.pem' holds a PEM block "PRIVATE KEY" but no certificate; put the CA certificate there`}},
		{"no CA", billing.PEM(), []string{"file '", "pool.pem' has only end-entity certificates", "replace them with the CA that issued them"}},
		{"no certificate", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []string{"pool.pem', line 1: invalid certificate", "copy it again"}},
		{"missing", nil, []string{"pool.pem", "no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			swaps, complaints, mended := poolSwaps(r), len(r.Logs.Said(poolComplaint)), len(r.Logs.Said(poolMended))
			if test.content == nil {
				if err := os.Remove(filepath.Join(r.Dir, "pool.pem")); err != nil {
					t.Fatal(err)
				}
			} else {
				r.Write("pool.pem", test.content)
			}
			clock.Until(r.T, "a complaint", func() bool { return len(r.Logs.Said(poolComplaint)) > complaints })
			said := r.Logs.Said(poolComplaint)[complaints]
			for _, text := range test.texts {
				if !strings.Contains(said.Str("error"), text) {
					t.Errorf("the error lacks %q: %s", text, said.Str("error"))
				}
			}
			if said.Str("level") != "error" || said.Str("realm") != "default" || said.Str("pool") != "trust_pool" || said.Str("source") != "file" {
				t.Errorf("log line %v", said)
			}
			c.Get("https://api.test/").WantStatus(t, http.StatusOK)
			if poolSwaps(r) != swaps {
				t.Error("the pool was swapped")
			}
			// the broken file is read repeatedly, and delays no other source
			stuck := poolLastSuccess(r, t)
			for range 2 {
				before := poolSwaps(r)
				signal = append(signal, testpki.MustCA(t).PEM()...)
				r.Write("signal.pem", signal)
				clock.Until(r.T, "another file to count", func() bool { return poolSwaps(r) != before })
			}
			if now := poolLastSuccess(r, t); now != stuck {
				t.Errorf("the last success moved by %v s", now-stuck)
			}
			if said := r.Logs.Said(poolComplaint)[complaints:]; len(said) != 1 {
				t.Errorf("logged %d times: %v", len(said), said)
			}
			c.Get("https://api.test/").WantStatus(t, http.StatusOK)

			swaps = poolSwaps(r)
			replace(r, "pool.pem", r.OtherCA.PEM())
			clock.Until(r.T, "the end of the trouble", func() bool { return len(r.Logs.Said(poolMended)) > mended })
			clock.Until(r.T, "a success", func() bool { return poolLastSuccess(r, t) > stuck })
			if poolSwaps(r) != swaps {
				t.Error("the pool was swapped although it is unchanged")
			}
		})
	}
	complaints, swaps := len(r.Logs.Said(poolComplaint)), poolSwaps(r)
	r.Write("pool.pem", []byte("garbage again\n"))
	clock.Until(r.T, "a complaint", func() bool { return len(r.Logs.Said(poolComplaint)) > complaints })
	r.Write("pool.pem", r.ServerCA.PEM())
	clock.Until(r.T, "the mended file to count", func() bool { return poolSwaps(r) != swaps })
	r.WantReason(t, c.Get("https://api.test/"), "certificate_untrusted")
}
