package mtlsauth

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestVerifierReportsUnreadableCertificates checks that the refusal of a certificate that
// cannot be parsed is counted and remembered, too, with what is wrong.
func TestVerifierReportsUnreadableCertificates(t *testing.T) {
	realm := provisionRealm(t, `{"clients":[{"client_id":"a","x509_thumbprints":"`+testpki.SomeSHA256+`"}]}`).Realms[defaultRealm]
	core, logs := observer.New(zap.WarnLevel)
	realm.refusals.Logger = zap.New(core)
	realm.refusals.Reporter = reporter.New(reporter.Config{Logger: realm.refusals.Logger, Now: time.Now})
	go realm.refusals.Reporter.Run()
	leaf := testpki.MustSelfSigned(t).Cert.Raw
	verifier := &Verifier{realm: realm}
	for _, raw := range [][][]byte{{leaf[:len(leaf)-1]}, {leaf, []byte("\x1b[31m<b>")}} {
		if err := verifier.VerifyClientCertificate(raw, nil); err == nil || err.Error() != refusedWord {
			t.Errorf("the error is %v", err)
		}
	}
	realm.refusals.Reporter.Close(t.Context())
	lines := logs.All()
	if len(lines) != 2 || lines[0].Message != "client refused in the handshake" || lines[1].Message != "refusal repeated" {
		t.Fatalf("logged: %v", lines)
	}
	for i, want := range []string{"certificate 1 of 1: invalid certificate", "certificate 2 of 2: invalid certificate"} {
		record, found := realm.app.Observed().Refusal(lines[i].ContextMap()["error_id"].(string))
		if !found || record.Reason != "certificate_unsuitable" || record.Directive != directiveVerifier || !strings.HasPrefix(record.Detail, want) {
			t.Errorf("remembered: %+v, %v", record, found)
		}
	}
}

// TestMemoryOutlivesConfigurations checks that the memory of a realm belongs to its name,
// and ends with the last configuration that has the realm.
func TestMemoryOutlivesConfigurations(t *testing.T) {
	const name = "outlives"
	load := func() *App {
		app := &App{Now: time.Now, memories: make(memories)}
		app.memories.of(name, app.Now)
		if app.memories.of(name, app.Now) != app.memories[name] {
			t.Error("the second directive gets another memory")
		}
		return app
	}
	first := load()
	first.memories[name].refusals.Add(refusals.Record{ErrorID: "a", At: time.Now()})
	second := load()
	if err := first.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if _, found := second.Observed().Refusal("a"); !found {
		t.Error("the reload has forgotten the refusal")
	}
	if _, found := first.Observed().Refusal("a"); !found {
		t.Error("the configuration that has ended lost its memory")
	}
	failed := load() // and is never started
	if err := failed.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if n, _ := realmMemories.References(name); n != 1 {
		t.Errorf("%d references, want 1", n)
	}
	if err := second.Cleanup(); err != nil {
		t.Fatal(err)
	}
	last := load()
	if _, found := last.Observed().Refusal("a"); found {
		t.Error("the refusal is remembered after the realm has ended")
	}
	if err := last.Cleanup(); err != nil {
		t.Fatal(err)
	}
}

// TestRefusalsConfigIsChecked checks that numbers that no Caddyfile could have are refused in
// JSON as well.
func TestRefusalsConfigIsChecked(t *testing.T) {
	number := func(n int) *int { return &n }
	for want, config := range map[string]*RefusalsConfig{
		"":                           nil,
		"keep 0 is out":              {Keep: number(0)},
		"keep -1 is out":             {Keep: number(-1)},
		"keep 100001 is out":         {Keep: number(100_001)},
		"keep_for 1s is out":         {KeepFor: caddy.Duration(time.Second)},
		"keep_for -1h0m0s is out":    {KeepFor: caddy.Duration(-time.Hour)},
		"keep_for 721h0m0s is out":   {KeepFor: caddy.Duration(721 * time.Hour)},
		"metrics_by_client -1 is":    {MetricsByClient: number(-1)},
		"metrics_by_client 10001 is": {MetricsByClient: number(10_001)},
	} {
		err := config.check()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	good := &RefusalsConfig{Keep: number(1), KeepFor: caddy.Duration(time.Minute), MetricsByClient: number(0)}
	realm := &Realm{Refusals: good}
	if limits := realm.Refusals.limits(time.Now); good.check() != nil || limits.Keep != 1 || limits.KeepFor != time.Minute || good.metricsByClient() != 0 {
		t.Errorf("%v, %+v", good.check(), limits)
	}
	realm.Refusals = nil
	if limits := realm.Refusals.limits(time.Now); limits.Keep != 10_000 || limits.KeepFor != 24*time.Hour || realm.Refusals.metricsByClient() != 1000 {
		t.Errorf("defaults: %+v", limits)
	}
}
