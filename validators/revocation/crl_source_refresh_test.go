package revocation

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func TestCRLSourceNext(t *testing.T) {
	ca := testpki.MustCA(t)
	for name, test := range map[string]struct {
		lifetime, refresh time.Duration
		jitter            float64
		fails             bool
		want              time.Duration
	}{
		"default":                 {24 * time.Hour, 0, 0, false, time.Hour},
		"refresh":                 {24 * time.Hour, 10 * time.Minute, 0, false, 10 * time.Minute},
		"before nextUpdate":       {20 * time.Minute, 0, 0, false, 18 * time.Minute},
		"jitter":                  {24 * time.Hour, 0, 1, false, 54 * time.Minute},
		"jitter, nextUpdate":      {20 * time.Minute, 0, 0.5, false, 18*time.Minute - 54*time.Second},
		"nextUpdate soon":         {time.Second, 0, 0, false, time.Minute},
		"stale":                   {-time.Hour, 0, 0, false, time.Minute},
		"failed":                  {0, 0, 0, true, 5 * time.Second},
		"failed, jitter":          {0, 0, 1, true, 4500 * time.Millisecond},
		"refresh, faster":         {24 * time.Hour, 5 * time.Second, 0, false, 5 * time.Second},
		"refresh, faster, failed": {0, 5 * time.Second, 0, true, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCRLWorld(t, func(c *CRLConfig) { c.Refresh, c.Jitter = test.refresh, func() float64 { return test.jitter } }, crlURL)
			if !w.Next().IsZero() {
				t.Errorf("first at %s", w.Next())
			}
			if !test.fails {
				w.web[crlURL] = makeCRL(t, ca, now, crlDates(w.now.Add(-2*time.Hour), w.now.Add(test.lifetime)))
			}
			w.refresh(0, "crl: ")
			if got := w.Next().Sub(w.now); got != test.want {
				t.Errorf("next after %s, want %s", got, test.want)
			}
			w.refresh(test.want-time.Nanosecond, silence)
			w.refresh(time.Nanosecond, "crl: ")
		})
	}
	if next := newCRLWorld(t, nil, "a.crl").Next(); !next.IsZero() {
		t.Errorf("files are due at %s", next)
	}
	w := newCRLWorld(t, nil, crlURL)
	for _, pause := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
		w.refresh(0, "404")
		if got := w.Next().Sub(w.now); got != pause {
			t.Errorf("next after %s, want %s", got, pause)
		}
		w.now = w.Next()
	}
	w = newCRLWorld(t, nil, "http://a/", "http://b/")
	w.web["http://a/"] = makeCRL(t, ca, now)
	w.web["http://b/"] = makeCRL(t, ca, now, crlDates(now, now.Add(10*time.Minute)))
	w.refresh(0, "")
	if got := w.Next().Sub(w.now).Round(time.Minute); got != 9*time.Minute {
		t.Errorf("next after %s, want the earliest", got)
	}
}

func TestCRLSourceTakesOver(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	revoking := makeCRL(t, ca, now, crlNumber(5), crlRevokes(1, leaf))
	w := newCRLWorld(t, nil, "a.crl", crlURL, "http://gone/")
	w.write("a.crl", revoking)
	w.web[crlURL], w.web["http://gone/"] = revoking, revoking
	w.refresh(0, "<nil>")
	w.expect(leaf, ca.Cert, true, true)

	next := w.source(nil, crlURL, "a.crl", "http://new/")
	next.TakeOver(w.CRLSource)
	w.CRLSource = next
	w.expect(leaf, ca.Cert, true, true)
	fetched := w.fetched
	w.refresh(0, "404") // the new one alone
	if w.fetched != fetched+1 {
		t.Errorf("%d fetches", w.fetched-fetched)
	}
	old := makeCRL(t, ca, now, crlNumber(4))
	w.write("a.crl", old)
	w.web[crlURL] = old
	w.refresh(54*time.Minute, "goes back")
	w.expect(leaf, ca.Cert, true, true)
}

func TestCRLFetchThatPanicsIsAFailure(t *testing.T) {
	w := newCRLWorld(t, func(config *CRLConfig) {
		config.Fetch = func(context.Context, string) ([]byte, error) { panic("index out of range") }
	}, crlURL)
	w.Refresh(t.Context())
	if state := w.States()[0]; !strings.Contains(fmt.Sprint(state.Failure), "panicked: index out of range") {
		t.Errorf("%+v", state)
	}
}

func TestCRLSourceHidesPasswords(t *testing.T) {
	w := newCRLWorld(t, nil, "https://user:secret@ca.example/crl?key=x")
	w.CRLSource.config.Report = func(place string, err error) { w.reports = append(w.reports, place) }
	w.refresh(0, "https://ca.example")
	if text := fmt.Sprint(w.reports, w.States()); strings.Contains(text, "secret") {
		t.Error(text)
	}
}

func TestHangingCRLFetchDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.MustCA(t)
		leaf := testpki.MustIssue(t, ca).Cert
		good := makeCRL(t, ca, time.Now())
		checker := NewChecker(Config{CRLs: true})
		source, err := NewCRLSource(CRLConfig{
			Locations: []string{"http://hangs/", "http://good/"},
			Fetch: func(ctx context.Context, url string) ([]byte, error) {
				if url == "http://good/" {
					return good, nil
				}
				<-ctx.Done()
				return nil, ctx.Err()
			},
			Use: checker.SetCRLs,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go source.Refresh(ctx)
		synctest.Wait()
		chain := []*x509.Certificate{leaf, ca.Cert}
		if refusal, _ := checker.Check(ctx, chain, time.Now()); refusal != nil {
			t.Error(refusal)
		}
		start := time.Now()
		source.Refresh(ctx) // what is being fetched is not fetched twice
		_ = source.States()
		other, err := NewCRLSource(CRLConfig{Locations: []string{"http://hangs/", "http://good/"}})
		if err != nil {
			t.Fatal(err)
		}
		other.TakeOver(source)
		if took := time.Since(start); took != 0 {
			t.Errorf("took %s", took)
		}
		if _, err := other.CRLs().statusOf(leaf, ca.Cert, time.Now()); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestCRLFetchThatIsGivenUpIsNotReported: a server has not failed because the
// configuration has ended while it was asked.
func TestCRLFetchThatIsGivenUpIsNotReported(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	source, err := NewCRLSource(CRLConfig{
		Locations: []string{crlURL},
		Fetch: func(ctx context.Context, _ string) ([]byte, error) {
			cancel()
			return nil, ctx.Err()
		},
		Report: func(place string, err error) { t.Errorf("%s: %v", place, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	source.Refresh(ctx)
	if failures := source.Failures(); strings.Contains(failures, "canceled") {
		t.Error(failures)
	}
}

func TestCRLSourceIsSafeForConcurrentUse(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	w := newCRLWorld(t, func(c *CRLConfig) { c.Refresh, c.Use = time.Nanosecond, nil }, "a.crl", crlURL)
	w.write("a.crl", makeCRL(t, ca, now))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 20 {
				w.mu.Lock()
				w.web[crlURL] = makeCRL(t, ca, now, crlNumber(int64(20*i+j)), crlRevokes(1, leaf))
				w.now = w.now.Add(time.Minute)
				w.mu.Unlock()
				w.Refresh(t.Context())
				w.PollFiles()
				_, _ = w.CRLs().statusOf(leaf, ca.Cert, now)
				_, _ = w.States(), w.Next()
				other := w.source(func(c *CRLConfig) { c.Use = nil }, "a.crl", crlURL)
				other.TakeOver(w.CRLSource)
			}
		})
	}
	all.Wait()
	if status, err := w.CRLs().statusOf(leaf, ca.Cert, now); !status.Revoked {
		t.Error(err)
	}
}
