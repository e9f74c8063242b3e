package mtlsauth

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// poolRealm is a realm with a trust pool and one client, that is known by name.
func poolRealm(pool string) string {
	return "mtls {\n" + pool + "\nclient billing.partner {\nsubject CN=billing\n}\n}\n"
}

// clocked is a trust pool of another source, with the clock of the test. The CA
// of its own is trusted too.
func clocked(t *testing.T, sources ...string) string {
	pool := "trust_pool combined {\nsource rig @DIR@/clients-ca.pem " + t.Name() + "\n"
	for _, source := range sources {
		pool += "source " + source + "\n"
	}
	return pool + "}"
}

// replace puts a complete file in the place of another.
func (r *rig) replace(name string, content []byte) {
	r.t.Helper()
	fresh := r.write(name+".new", content)
	if err := os.Rename(fresh, filepath.Join(r.dir, name)); err != nil {
		r.t.Fatal(err)
	}
}

// poolSwaps counts how often a trust pool of the realm was replaced.
func (r *rig) poolSwaps() int { return len(r.said(poolChanged)) }

// poolLastSuccess is when the trust pool was last read without an error, by the
// metric. It needs adminOn.
func (r *rig) poolLastSuccess(t *testing.T) float64 {
	t.Helper()
	return series(t, r.metrics(t), "default")[`source_last_success_timestamp_seconds{source="trust_pool"}`]
}

// until moves the clock until the condition holds.
func (r *rig) until(clock *rigClock, what string, condition func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(rigPatience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within %v", what, rigPatience)
		}
		clock.advance(4 * time.Second)
	}
}

// said returns the log lines with this message and, in their error, the texts.
func (r *rig) said(message string, texts ...string) []logEntry {
	return r.logs.all(func(entry logEntry) bool {
		return entry.str("msg") == message && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(entry.str("error"), text) })
	})
}

const (
	poolComplaint = "a trust pool cannot be loaded again; the CAs it had stay in force"
	poolChanged   = "the trust pool has changed"
	poolMended    = "the trust pool can be loaded again"
)

// TestC2_TrustPoolFile: who the new pool refuses is refused on the next request
// of an open connection, and who it trusts is admitted although a moment ago he
// was not, in place and by renaming, on its own and nested in another.
func TestC2_TrustPoolFile(t *testing.T) {
	for name, pool := range map[string]string{
		"file":     "trust_pool file @DIR@/pool.pem",
		"combined": "trust_pool combined {\nsource file @DIR@/server-ca.pem\nsource combined {\nsource file @DIR@/pool.pem\n}\n}",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.write("pool.pem", r.ca.PEM())
			before, after := r.issue("billing"), r.issueBy(r.otherCA, "after", testpki.CommonName("billing"))
			r.start(poolRealm(pool), oneSite)
			old, fresh := make(map[string]*caller), make(map[string]*caller)
			for _, protocol := range rigProtocols {
				old[protocol], fresh[protocol] = r.caller(t, protocol, before), r.caller(t, protocol, after)
			}
			check := func(admitted, refused map[string]*caller) {
				t.Helper()
				for _, protocol := range rigProtocols {
					// both orders, for what was remembered of either must be gone
					refused[protocol].eventually(t, http.StatusUnauthorized)
					admitted[protocol].eventually(t, http.StatusOK).wantClient(t, "billing.partner")
					r.wantReason(t, refused[protocol].get("https://api.test/"), "certificate_untrusted")
				}
			}
			check(old, fresh)
			r.replace("pool.pem", r.otherCA.PEM())
			check(fresh, old)
			r.write("pool.pem", r.ca.PEM()) // in place
			check(old, fresh)
			// both, and the one that is added counts at once
			r.write("pool.pem", append(r.ca.PEM(), r.otherCA.PEM()...))
			for _, protocol := range rigProtocols {
				fresh[protocol].eventually(t, http.StatusOK)
				old[protocol].get("https://api.test/").wantStatus(t, http.StatusOK)
			}
			changes := r.logs.all(func(entry logEntry) bool { return entry.str("msg") == "the trust pool has changed" })
			if len(changes) != 3 || changes[0].str("pool") != "trust_pool" || changes[0].str("realm") != "default" {
				t.Errorf("changes in the log: %v", changes)
			}
			for i, want := range []string{"[CN=Other CA] [CN=Clients CA]", "[CN=Clients CA] [CN=Other CA]", "[CN=Other CA] []"} {
				if i < len(changes) && fmt.Sprint(changes[i]["added"], " ", changes[i]["removed"]) != want {
					t.Errorf("change %d: added %v, removed %v, want %s", i, changes[i]["added"], changes[i]["removed"], want)
				}
			}
		})
	}
}

// TestC2_TrustPoolFileOpenConnections: it is the connections that were open
// before that the new pool decides about.
func TestC2_TrustPoolFileOpenConnections(t *testing.T) {
	for _, protocol := range []string{"h1", "h2"} {
		r := newRig(t)
		r.write("pool.pem", r.ca.PEM())
		billing := r.issue("billing")
		r.start(poolRealm("trust_pool file @DIR@/pool.pem"), oneSite)
		c := r.caller(t, protocol, billing)
		var open bool
		c.get("https://api.test/", reused(&open)).wantStatus(t, http.StatusOK)
		r.replace("pool.pem", r.otherCA.PEM())
		c.eventually(t, http.StatusUnauthorized)
		if c.get("https://api.test/", reused(&open)).wantStatus(t, http.StatusUnauthorized); !open {
			t.Errorf("%s: the refused request went over another connection", protocol)
		}
	}
}

// TestB4_BrokenTrustPoolFile: a file that is broken changes nothing, is
// complained of once, and shows in the metric; one that is mended counts.
func TestB4_BrokenTrustPoolFile(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	r.write("pool.pem", r.otherCA.PEM())
	signal := r.ca.PEM()
	r.write("signal.pem", signal)
	billing := r.issueBy(r.otherCA, "billing")
	two := append(r.otherCA.PEM(), r.serverCA.PEM()...)
	r.adminOn = true
	r.start(poolRealm("trust_pool file @DIR@/pool.pem @DIR@/signal.pem\nshadow_trust_pool rig @DIR@/other-ca.pem "+t.Name()), oneSite)
	c := r.caller(t, "h2", billing)
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	damagedAt := 1 + bytes.Count(r.otherCA.PEM(), []byte("\n"))
	for _, test := range []struct {
		name    string
		content []byte // nil removes the file
		texts   []string
	}{
		{"half-written", two[:len(two)-100], []string{"pool.pem', line " + fmt.Sprint(damagedAt), "a PEM block is damaged, cut off or indented; copy it again"}},
		{"empty", []byte{}, []string{"pool.pem' holds no PEM certificate; put the CA's certificate there, in PEM"}},
		{"garbage", []byte("garbage\n"), []string{"pool.pem' holds no PEM certificate; put the CA's certificate there, in PEM"}},
		{"key", r.ca.KeyPEM(), []string{`pool.pem' holds a PEM block "PRIVATE KEY" but no certificate; put the CA's certificate there`}},
		{"no CA", billing.PEM(), []string{"file '", "pool.pem' holds no CA certificate, only those of end entities", "put the CA there that issued them"}},
		{"no certificate", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []string{"pool.pem', line 1: the certificate does not parse", "copy it again"}},
		{"missing", nil, []string{"pool.pem", "no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			swaps, complaints, mended := r.poolSwaps(), len(r.said(poolComplaint)), len(r.said(poolMended))
			if test.content == nil {
				if err := os.Remove(filepath.Join(r.dir, "pool.pem")); err != nil {
					t.Fatal(err)
				}
			} else {
				r.write("pool.pem", test.content)
			}
			r.until(clock, "a complaint", func() bool { return len(r.said(poolComplaint)) > complaints })
			said := r.said(poolComplaint)[complaints]
			for _, text := range test.texts {
				if !strings.Contains(said.str("error"), text) {
					t.Errorf("the error lacks %q: %s", text, said.str("error"))
				}
			}
			if said.str("level") != "error" || said.str("realm") != "default" || said.str("pool") != "trust_pool" || said.str("source") != "file" {
				t.Errorf("log line %v", said)
			}
			c.get("https://api.test/").wantStatus(t, http.StatusOK)
			if r.poolSwaps() != swaps {
				t.Error("something was swapped")
			}
			// the broken file is looked at again and again, and holds up no other
			stuck := r.poolLastSuccess(t)
			for range 2 {
				before := r.poolSwaps()
				signal = append(signal, testpki.MustCA(t).PEM()...)
				r.write("signal.pem", signal)
				r.until(clock, "another file to count", func() bool { return r.poolSwaps() != before })
			}
			if now := r.poolLastSuccess(t); now != stuck {
				t.Errorf("the last success moved by %v s", now-stuck)
			}
			if said := r.said(poolComplaint)[complaints:]; len(said) != 1 {
				t.Errorf("complained %d times: %v", len(said), said)
			}
			c.get("https://api.test/").wantStatus(t, http.StatusOK)

			swaps = r.poolSwaps()
			r.replace("pool.pem", r.otherCA.PEM())
			r.until(clock, "the end of the trouble", func() bool { return len(r.said(poolMended)) > mended })
			r.until(clock, "a success", func() bool { return r.poolLastSuccess(t) > stuck })
			if r.poolSwaps() != swaps {
				t.Error("the pool is the same as before, but something was swapped")
			}
		})
	}
	complaints, swaps := len(r.said(poolComplaint)), r.poolSwaps()
	r.write("pool.pem", []byte("garbage again\n"))
	r.until(clock, "a complaint", func() bool { return len(r.said(poolComplaint)) > complaints })
	r.write("pool.pem", r.serverCA.PEM())
	r.until(clock, "the mended file to count", func() bool { return r.poolSwaps() != swaps })
	r.wantReason(t, c.get("https://api.test/"), "certificate_untrusted")
}
