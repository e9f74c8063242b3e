package mtlsauth

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// standFor returns how many refusals the log lines stand for, and how many lines there
// are, without the one about dropped refusals.
func standFor(logs *observer.ObservedLogs) (refused, lines int64) {
	for _, line := range logs.All() {
		fields := line.ContextMap()
		switch line.Message {
		case "client refused":
			refused++
			lines++
		case "refusal repeated", "more refusals":
			refused += fields["times"].(int64)
			lines++
		case "too many refusals at once; some were not logged":
			refused += fields["dropped"].(int64)
		}
	}
	return refused, lines
}

// TestFloodOfStrangersIsFoldedAndRemembered_S3 checks that ten thousand strangers, each
// with a certificate of its own, get at most 101 lines in a minute, that the lines and what
// is dropped stand for all of them, and that the error id of a client is still found.
func TestFloodOfStrangersIsFoldedAndRemembered_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	now := time.Now()
	realm.app.Now = func() time.Time { return now }
	realm.memory.refusals.SetLimits(refusals.Limits{Keep: 1000, Now: realm.app.Now})
	known := refused
	known.clientID, known.errorID, known.refusal = "billing", "known-before-the-flood", refuse(validators.ClientNotAllowed, "no")
	logRefusal(realm, nil, known)
	template := *refused.presented[0]
	const strangers = 10_000
	for i := range strangers {
		leaf := template
		leaf.Raw = fmt.Appendf(nil, "certificate %d", i)
		stranger := refused
		stranger.presented, stranger.errorID = []*x509.Certificate{&leaf}, fmt.Sprint("flood-", i)
		logRefusal(realm, nil, stranger)
		if i%1500 == 0 { // so that some are dropped
			realm.app.refusals.empty()
		}
	}
	go realm.app.refusals.run()
	realm.app.refusals.close(t.Context())
	dropped := realm.app.refusals.Dropped()
	if refused, lines := standFor(logs); refused != strangers+1 || lines > 102 || dropped == 0 {
		t.Errorf("%d lines stand for %d refusals, %d of them dropped; want at most 102 for %d", lines, refused, dropped, strangers+1)
	}
	if record, found := realm.memory.refusals.Find("known-before-the-flood"); !found || record.ClientID != "billing" {
		t.Errorf("found %v, %v", record, found)
	}
	if n := realm.memory.refusals.Len(); n != 1000 {
		t.Errorf("%d refusals are remembered, want 1000", n)
	}
}

// TestFloodTakesNoRoomFromClients_S3 checks that refusals of clients are reported while those
// of strangers fill their queue, by their number or by the size of their certificates.
func TestFloodTakesNoRoomFromClients_S3(t *testing.T) {
	realm, _, refused := refusing(t)
	for name, extra := range map[string]int{"many": 0, "large": 60 << 10} {
		leaf := *refused.presented[0]
		leaf.Raw = append(leaf.Raw, make([]byte, extra)...)
		stranger := refused
		stranger.presented = []*x509.Certificate{&leaf}
		before := realm.app.refusals.Dropped()
		for range 2 * maxQueuedRefusals {
			logRefusal(realm, nil, stranger)
		}
		if realm.app.refusals.Dropped() == before {
			t.Fatalf("%s: the queue is not full", name)
		}
		client := refused
		client.clientID, client.errorID = "billing", "refused-in-the-flood-"+name
		nobody := refused
		nobody.presented, nobody.errorID = nil, "nobody-in-the-flood-"+name
		logRefusal(realm, nil, client)
		logRefusal(realm, nil, nobody)
		realm.app.refusals.empty()
		for _, id := range []string{client.errorID, nobody.errorID} {
			if _, found := realm.memory.refusals.Find(id); !found {
				t.Errorf("%s is not found", id)
			}
		}
	}
}

// TestRepetitionsAreToldEachMinute checks that the reporter tells counts without another
// refusal, by the clock of the app, and how many it has dropped at most once a minute.
func TestRepetitionsAreToldEachMinute(t *testing.T) {
	realm, logs, refused := refusing(t)
	leaf := refused.presented
	synctest.Test(t, func(t *testing.T) {
		realm.app.Now = time.Now
		realm.app.refusals = newReporter(realm.app)
		go realm.app.refusals.run()
		for i := range 5 {
			again := refused
			again.presented, again.errorID = leaf, fmt.Sprint("again-", i)
			logRefusal(realm, nil, again)
		}
		realm.app.refusals.dropped.Add(7)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := logs.FilterMessage("refusal repeated").Len(); n != 0 {
			t.Errorf("%d counts after half a minute", n)
		}
		time.Sleep(32 * time.Second)
		synctest.Wait()
		counts := logs.FilterMessage("refusal repeated").All()
		if len(counts) != 1 {
			t.Fatalf("%d counts after a minute", len(counts))
		}
		fields := counts[0].ContextMap()
		for field, want := range map[string]any{
			"times": int64(4), "refused": "client refused", "reason": "certificate_unknown", "error_id": "again-4", "realm": "default",
			"thumbprint": validators.ThumbprintOf(leaf[0].Raw).String(), "client_id": nil,
		} {
			if fields[field] != want {
				t.Errorf("%s is %v, want %v", field, fields[field], want)
			}
		}
		realm.app.refusals.dropped.Add(5)
		time.Sleep(65 * time.Second)
		synctest.Wait()
		told := logs.FilterMessage("too many refusals at once; some were not logged").All()
		if len(told) != 2 || told[0].ContextMap()["dropped"] != int64(7) || told[1].ContextMap()["dropped"] != int64(5) {
			t.Errorf("told of dropped refusals: %v", told)
		}
		logRefusal(realm, nil, refused)
		realm.app.refusals.close(t.Context())
		if n := logs.FilterMessage("client refused").Len(); n != 2 {
			t.Errorf("%d refusals have a line, want the first and the one after a minute of silence", n)
		}
	})
}

// TestRefusalsAreReportedConcurrently_S3 is for the race detector: many refuse while the
// configuration ends, and nothing is lost.
func TestRefusalsAreReportedConcurrently_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.app.refusals.run()
	const workers, each = 8, 200
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for i := range each {
				one := refused
				one.errorID = fmt.Sprintf("concurrent-%d-%d", w, i)
				logRefusal(realm, nil, one)
				realm.app.Observed().Refusal(one.errorID)
				realm.observed().Strangers(3)
				if w == 0 && i == each/2 {
					realm.app.refusals.close(t.Context())
				}
			}
		})
	}
	work.Wait()
	if refused, _ := standFor(logs); refused != workers*each {
		t.Errorf("the log stands for %d refusals, want %d", refused, workers*each)
	}
}

// TestHintOfTheLogSaysWhatToDo checks that a refusal without a near miss has the remedy of
// its reason as its hint in the log, but not in what is remembered.
func TestHintOfTheLogSaysWhatToDo(t *testing.T) {
	realm, logs, _ := refusing(t)
	go realm.app.refusals.run()
	logRefusal(realm, nil, refusedRequest{message: "client refused", refusal: refuse(validators.CertificateMissing, "none"), errorID: "without-hint"})
	realm.app.refusals.close(t.Context())
	if hint, _ := logs.All()[0].ContextMap()["hint"].(string); !strings.HasPrefix(hint, "Check that the client sends its certificate") {
		t.Errorf("the hint is %q", hint)
	}
	if record, _ := realm.app.Observed().Refusal("without-hint"); record.Hint != "" || record.Detail != "none" {
		t.Errorf("remembered: %+v", record)
	}
}

// TestRefusalHasAnErrorIDOfItsOwn checks that a refusal whose caller gets no error id can
// be found by the one in its log line.
func TestRefusalHasAnErrorIDOfItsOwn(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.app.refusals.run()
	refused.errorID = ""
	logRefusal(realm, nil, refused)
	realm.app.refusals.close(t.Context())
	id, _ := logs.All()[0].ContextMap()["error_id"].(string)
	if record, found := realm.app.Observed().Refusal(id); len(id) != 9 || !found || record.Certificate == nil {
		t.Errorf("error id %q: %v, %v", id, record, found)
	}
}

// TestClaimedClientIsNotKnown_S3 checks that nobody can hide the refusals of a client by
// naming it in requests that cannot be read.
func TestClaimedClientIsNotKnown_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.app.refusals.run()
	for i, claimed := range []bool{true, true, false} {
		request := refused
		request.presented, request.clientID, request.claimed, request.errorID = nil, "billing", claimed, fmt.Sprint("claimed-", i)
		logRefusal(realm, nil, request)
	}
	realm.app.refusals.close(t.Context())
	var ids []string
	for _, line := range logs.FilterMessage("client refused").All() {
		ids = append(ids, line.ContextMap()["error_id"].(string))
	}
	slices.Sort(ids) // the classes of callers take turns
	if strings.Join(ids, " ") != "claimed-0 claimed-2" {
		t.Errorf("the lines are those of %s", ids)
	}
}

// TestVerifierReportsUnreadableCertificates checks that the refusal of a certificate that
// cannot be parsed is counted and remembered, too, with what is wrong.
func TestVerifierReportsUnreadableCertificates(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.app.refusals.run()
	leaf := refused.presented[0].Raw
	verifier := &Verifier{realm: realm}
	for _, raw := range [][][]byte{{leaf[:len(leaf)-1]}, {leaf, []byte("\x1b[31m<b>")}} {
		if err := verifier.VerifyClientCertificate(raw, nil); err == nil || err.Error() != refusedWord {
			t.Errorf("the error is %v", err)
		}
	}
	realm.app.refusals.close(t.Context())
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

// TestDeclaredCertificatesAreNoStrangers checks that a stranger leaves the list when a client
// declares its certificate or its key.
func TestDeclaredCertificatesAreNoStrangers(t *testing.T) {
	byThumbprint, byKey, nobody := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	app := provisionRealm(t, fmt.Sprintf(`{"clients":[{"client_id":"a","x509_thumbprints":%q},{"client_id":"b","x509_public_keys":%q}]}`,
		testpki.HashOf(byThumbprint.Cert.Raw), testpki.HashOf(byKey.Cert.RawSubjectPublicKeyInfo)))
	realm := app.Realms[defaultRealm]
	realm.memory.refusals = refusals.NewMemory(refusals.Limits{})
	go app.refusals.run()
	for _, leaf := range []*testpki.Leaf{byThumbprint, byKey, nobody} {
		logRefusal(realm, nil, refusedRequest{message: "client refused", refusal: refuse(validators.CertificateUnknown, "nobody"), presented: leaf.Presented()})
	}
	app.refusals.close(t.Context())
	list, more := realm.observed().Strangers(10)
	if len(list) != 1 || list[0].Thumbprint != testpki.HashOf(nobody.Cert.Raw) || more != 0 {
		t.Errorf("%d strangers and %d more: %v", len(list), more, list)
	}
	if list, more := realm.observed().Strangers(0); len(list) != 0 || more != 1 {
		t.Errorf("with limit 0, %d strangers and %d more", len(list), more)
	}
}
