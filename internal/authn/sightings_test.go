package authn

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestAdmissionsAreNoted checks that an admitted client is noted with what it was recognized
// by, that a name of any length takes a bounded memory, and that the client is not forgotten
// with its verdict.
func TestAdmissionsAreNoted(t *testing.T) {
	ca := testpki.MustCA(t)
	now := time.Now()
	uri := "https://example.com/" + strings.Repeat("x", 2000)
	leaf := testpki.MustIssue(t, ca, testpki.URIs(uri))
	table := sightings.NewTable()
	record := clients.Record{ClientID: "a", SANURI: clients.Strings{uri}}
	auth := New(Config{Registry: registryOf(t, record), Trust: validators.NewTrustPool(ca.Pool()), Sightings: table, Now: func() time.Time { return now }})
	for range 2 { // at first sight, and remembered
		id, refusal, _ := auth.Decide(t.Context(), leaf.Presented(), "")
		if refusal != nil {
			t.Fatal(refusal)
		}
		id.See()
		now = now.Add(time.Hour)
	}
	got, known := table.Of("a")
	if !known || got.Kind != "san_uri" || got.ThumbprintText() != testpki.HashOf(leaf.Cert.Raw) || now.Sub(got.At) > 61*time.Minute {
		t.Errorf("got %+v", got)
	}
	if len(got.Matched) > maxLoggedDN || !strings.HasPrefix(got.Matched, "https://example.com/xx") {
		t.Errorf("matched %d bytes: %.30s", len(got.Matched), got.Matched)
	}
	record.Scope = "more"
	auth = auth.WithRegistry(registryOf(t, record))
	if _, known := table.Of("a"); !known {
		t.Error("the client was forgotten when it changed")
	}
	presented := leaf.Presented()
	id, _, remembered := auth.Decide(t.Context(), leaf.Presented(), "")
	if id.See(); remembered || table.Len() != 1 {
		t.Errorf("remembered %v, %d seen", remembered, table.Len())
	}
	if n := testing.AllocsPerRun(100, func() {
		id, _, _ := auth.Decide(context.Background(), presented, "")
		id.See()
		now = now.Add(time.Minute)
	}); n > 0 && !testtool.RaceEnabled {
		t.Errorf("%v allocations", n)
	}
}
