package reporter

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
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
	realm.Memory.SetLimits(refusals.Limits{Keep: 1000, Now: realm.Reporter.config.Now})
	known := refused
	known.ClientID, known.ErrorID, known.Refusal = "billing", "known-before-the-flood", &validators.Refusal{Reason: validators.ClientNotAllowed, Detail: "no"}
	realm.Add(nil, known)
	template := *refused.Presented[0]
	const strangers = 10_000
	for i := range strangers {
		leaf := template
		leaf.Raw = fmt.Appendf(nil, "certificate %d", i)
		stranger := refused
		stranger.Presented, stranger.ErrorID = []*x509.Certificate{&leaf}, fmt.Sprint("flood-", i)
		realm.Add(nil, stranger)
		if i%1500 == 0 { // so that some are dropped
			realm.Reporter.empty()
		}
	}
	go realm.Reporter.Run()
	realm.Reporter.Close(t.Context())
	dropped := realm.Reporter.Dropped()
	if refused, lines := standFor(logs); refused != strangers+1 || lines > 102 || dropped == 0 {
		t.Errorf("%d lines stand for %d refusals, %d of them dropped; want at most 102 for %d", lines, refused, dropped, strangers+1)
	}
	if record, found := realm.Memory.Find("known-before-the-flood"); !found || record.ClientID != "billing" {
		t.Errorf("found %v, %v", record, found)
	}
	if n := realm.Memory.Len(); n != 1000 {
		t.Errorf("%d refusals are remembered, want 1000", n)
	}
}

// TestFloodTakesNoRoomFromClients_S3 checks that refusals of clients are reported while those
// of strangers fill their queue, by their number or by the size of their certificates.
func TestFloodTakesNoRoomFromClients_S3(t *testing.T) {
	realm, _, refused := refusing(t)
	for name, extra := range map[string]int{"many": 0, "large": 60 << 10} {
		leaf := *refused.Presented[0]
		leaf.Raw = append(leaf.Raw, make([]byte, extra)...)
		stranger := refused
		stranger.Presented = []*x509.Certificate{&leaf}
		before := realm.Reporter.Dropped()
		for range 2 * maxQueuedRefusals {
			realm.Add(nil, stranger)
		}
		if realm.Reporter.Dropped() == before {
			t.Fatalf("%s: the queue is not full", name)
		}
		client := refused
		client.ClientID, client.ErrorID = "billing", "refused-in-the-flood-"+name
		nobody := refused
		nobody.Presented, nobody.ErrorID = nil, "nobody-in-the-flood-"+name
		realm.Add(nil, client)
		realm.Add(nil, nobody)
		realm.Reporter.empty()
		for _, id := range []string{client.ErrorID, nobody.ErrorID} {
			if _, found := realm.Memory.Find(id); !found {
				t.Errorf("%s is not found", id)
			}
		}
	}
}

// TestRepetitionsAreToldEachMinute checks that the reporter tells counts without another
// refusal, by the clock of the app, and how many it has dropped at most once a minute.
func TestRepetitionsAreToldEachMinute(t *testing.T) {
	realm, logs, refused := refusingAt(t, time.Now)
	leaf := refused.Presented
	synctest.Test(t, func(t *testing.T) {
		realm.Reporter = New(realm.Reporter.config)
		go realm.Reporter.Run()
		for i := range 5 {
			again := refused
			again.Presented, again.ErrorID = leaf, fmt.Sprint("again-", i)
			realm.Add(nil, again)
		}
		realm.Reporter.dropped.Add(7)
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
		realm.Reporter.dropped.Add(5)
		time.Sleep(65 * time.Second)
		synctest.Wait()
		told := logs.FilterMessage("too many refusals at once; some were not logged").All()
		if len(told) != 2 || told[0].ContextMap()["dropped"] != int64(7) || told[1].ContextMap()["dropped"] != int64(5) {
			t.Errorf("told of dropped refusals: %v", told)
		}
		realm.Add(nil, refused)
		realm.Reporter.Close(t.Context())
		if n := logs.FilterMessage("client refused").Len(); n != 2 {
			t.Errorf("%d refusals have a line, want the first and the one after a minute of silence", n)
		}
	})
}

// TestRefusalsAreReportedConcurrently_S3 is for the race detector: many refuse while the
// configuration ends, and nothing is lost.
func TestRefusalsAreReportedConcurrently_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.Reporter.Run()
	const workers, each = 8, 200
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for i := range each {
				one := refused
				one.ErrorID = fmt.Sprintf("concurrent-%d-%d", w, i)
				realm.Add(nil, one)
				realm.Memory.Find(one.ErrorID)
				realm.Memory.Strangers(3)
				if w == 0 && i == each/2 {
					realm.Reporter.Close(t.Context())
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
	go realm.Reporter.Run()
	realm.Add(nil, Refused{Message: "client refused", Refusal: &validators.Refusal{Reason: validators.CertificateMissing, Detail: "none"}, ErrorID: "without-hint"})
	realm.Reporter.Close(t.Context())
	if hint, _ := logs.All()[0].ContextMap()["hint"].(string); !strings.HasPrefix(hint, "Check that the client sends its certificate") {
		t.Errorf("the hint is %q", hint)
	}
	if record, _ := realm.Memory.Find("without-hint"); record.Hint != "" || record.Detail != "none" {
		t.Errorf("remembered: %+v", record)
	}
}

// TestRefusalHasAnErrorIDOfItsOwn checks that a refusal whose caller gets no error id can
// be found by the one in its log line.
func TestRefusalHasAnErrorIDOfItsOwn(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.Reporter.Run()
	refused.ErrorID = ""
	realm.Add(nil, refused)
	realm.Reporter.Close(t.Context())
	id, _ := logs.All()[0].ContextMap()["error_id"].(string)
	if record, found := realm.Memory.Find(id); len(id) != 9 || !found || record.Certificate == nil {
		t.Errorf("error id %q: %v, %v", id, record, found)
	}
}

// TestClaimedClientIsNotKnown_S3 checks that nobody can hide the refusals of a client by
// naming it in requests that cannot be read.
func TestClaimedClientIsNotKnown_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.Reporter.Run()
	for i, claimed := range []bool{true, true, false} {
		request := refused
		request.Presented, request.ClientID, request.Claimed, request.ErrorID = nil, "billing", claimed, fmt.Sprint("claimed-", i)
		realm.Add(nil, request)
	}
	realm.Reporter.Close(t.Context())
	var ids []string
	for _, line := range logs.FilterMessage("client refused").All() {
		ids = append(ids, line.ContextMap()["error_id"].(string))
	}
	slices.Sort(ids) // the classes of callers take turns
	if strings.Join(ids, " ") != "claimed-0 claimed-2" {
		t.Errorf("the lines are those of %s", ids)
	}
}

// TestDroppedRefusalsAreCounted checks that a refusal for which the queue has no room is
// counted as dropped.
func TestDroppedRefusalsAreCounted(t *testing.T) {
	count := func() float64 {
		var metric dto.Metric
		if err := metrics.RefusalsDropped.Write(&metric); err != nil {
			t.Fatal(err)
		}
		return metric.GetCounter().GetValue()
	}
	realm, _, refused := refusing(t)
	r := httptest.NewRequest(http.MethodGet, "https://api.test/", nil)
	before := count()
	for range maxQueuedRefusals + 3 {
		realm.Add(r, refused)
	}
	if dropped := count() - before; dropped != 3 {
		t.Errorf("%v are counted as dropped, want 3", dropped)
	}
}
