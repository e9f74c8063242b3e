package trust_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestRanks checks that a record of a source never changes what a client of a higher
// rank gets, in the Caddyfile or in an earlier file, and is in force when that client
// lets go.
func TestRanks(t *testing.T) {
	r := rig.New(t)
	billing, partner, device := r.Issue("billing"), r.SelfSigned("partner"), r.SelfSigned("device")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Write("first.json", pinsFile("", map[string]*testpki.Leaf{"first": partner}))
	// claims the name of a client in the Caddyfile, and a certificate of the first file
	r.Write("second.json", []byte(strings.Join([]string{
		`[{"client_id":"billing.partner","x509_thumbprints":"` + testpki.HashOf(device.Cert.Raw) + `"}`,
		`{"client_id":"thief","x509_thumbprints":"` + testpki.HashOf(partner.Cert.Raw) + `"}`,
		`{"client_id":"honest","x509_thumbprints":"` + testpki.SomeSHA256 + `"}]`,
	}, ",\n")))
	realm := strings.Replace(rig.BillingAndSensor, "client billing.partner", "clients_from file \"@DIR@/first.json\" \"@DIR@/second.json\"\nclient billing.partner", 1)
	r.Start(realm, rig.OneSite)
	who := func(leaf *testpki.Leaf) string {
		got := r.Caller(t, "h1", leaf).Get("https://api.test/")
		if got.Status != http.StatusOK {
			return ""
		}
		return got.Seen.Header.Get("X-Client-ID")
	}
	want := func(ofBilling, ofPartner, ofDevice string) {
		t.Helper()
		rig.Await(r, t, "the clients", func() bool {
			return who(billing) == ofBilling && who(partner) == ofPartner && who(device) == ofDevice
		})
	}
	want("billing.partner", "first", "")
	for i, id := range []string{"billing.partner", "thief"} {
		r.Logs.WaitFor(t, 1, "the refused "+id, func(entry rig.LogEntry) bool {
			return strings.HasPrefix(entry.Str("msg"), "client record refused") && entry.Str("client_id") == id && entry.Str("record") == fmt.Sprint("line ", i+1)
		})
	}
	second := fmt.Sprintf(`{source="file:%s/second.json"}`, r.Dir)
	rig.CheckGauges(t, rig.Series(t, rig.Metrics(r, t), "default"), map[string]float64{"clients" + second: 1, "clients_refused" + second: 2})

	replace(r, "first.json", []byte("[]")) // which lets go
	want("billing.partner", "thief", "")
	replace(r, "first.json", pinsFile("", map[string]*testpki.Leaf{"first": partner})) // and takes it back
	want("billing.partner", "first", "")
	rig.CheckGauges(t, rig.Series(t, rig.Metrics(r, t), "default"), map[string]float64{"clients" + second: 1, "clients_refused" + second: 2})
}

// unreliable is a source of clients that can be out of reach.
var unreliable struct {
	sync.Mutex
	record string // of its one client
	away   bool
}

type unreliableSource struct{}

func init() { caddy.RegisterModule(unreliableSource{}) }

func (unreliableSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mtls.clients.unreliable", New: func() caddy.Module { return new(unreliableSource) }}
}

func (unreliableSource) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (s unreliableSource) ClientSources(clients.Host) ([]clients.Source, error) {
	return []clients.Source{s}, nil
}

func (unreliableSource) Info() clients.SourceInfo { return clients.SourceInfo{Name: "unreliable"} }

func (unreliableSource) Load(ctx context.Context, sink clients.Sink) error {
	unreliable.Lock()
	defer unreliable.Unlock()
	if unreliable.away {
		return fmt.Errorf("connecting: %w", clients.ErrUnavailable)
	}
	return sink.Replace(ctx, iter.Seq2[clients.Entry, error](func(yield func(clients.Entry, error) bool) {
		yield(clients.Entry{Record: []byte(unreliable.record)}, nil)
	}))
}

func (unreliableSource) Watch(ctx context.Context, _ clients.Sink) { <-ctx.Done() }

// TestReloadWithoutSource checks that a reload takes over the clients of a source that
// cannot be reached, and that a first start without it fails.
func TestReloadWithoutSource(t *testing.T) {
	set := func(record string, away bool) {
		unreliable.Lock()
		defer unreliable.Unlock()
		unreliable.record, unreliable.away = record, away
	}
	r := rig.New(t)
	billing, partner := r.Issue("billing"), r.SelfSigned("partner")
	r.SelfSigned("sensor")
	set(`{"client_id":"partner","x509_thumbprints":"`+testpki.HashOf(partner.Cert.Raw)+`"}`, false)
	r.AdminOn = true
	realm := strings.Replace(rig.BillingAndSensor, "client billing.partner", "clients_from unreliable\nclient billing.partner", 1)
	r.Start(realm, rig.OneSite)
	for _, away := range []bool{false, true, true} {
		set(unreliable.record, away)
		r.Reload(realm, rig.OneSite)
		r.Caller(t, "h1", partner).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
		r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
	if said := r.Logs.Said("client source unavailable; keeping clients of the running configuration"); len(said) != 2 {
		t.Errorf("%d log lines", len(said))
	}
	failures := rig.Series(t, rig.Metrics(r, t), "default")
	if failures[`client_source_failures_total{source="unreliable"}`] < 2 {
		t.Errorf("failures are not counted: %v", failures)
	}
	// a configuration that did not have the source has nothing to take over
	r.Reload(rig.BillingAndSensor, rig.OneSite)
	if err := r.Load(realm, rig.OneSite); err == nil || !strings.Contains(err.Error(), "clients from unreliable: connecting: source is unavailable") {
		t.Error(err)
	}
}
