package revocation

import (
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// look polls the files after a while, and returns the state of the first.
func (w *crlWorld) look(after time.Duration) CRLState {
	w.now = w.now.Add(after)
	w.PollFiles()
	return w.States()[0]
}

// A file that is still being written is not reported, and one that has not changed
// counts as loaded.
func TestHalfWrittenCRLFileIsNotReported(t *testing.T) {
	ca := testpki.MustCA(t)
	good, next := makeCRL(t, ca, now), makeCRL(t, ca, now, crlNumber(2))
	w := newCRLWorld(t, nil, "a.crl")
	w.write("a.crl", good)
	w.refresh(0, "a.crl: <nil>")
	for range 3 {
		if state := w.look(time.Hour); !state.Loaded.Equal(w.now) {
			t.Errorf("last success %s, want now", state.Loaded)
		}
	}
	w.reports = nil
	before := w.now
	for _, half := range [][]byte{next[:40], next[:len(next)-1]} {
		w.write("a.crl", half)
		if state := w.look(source.QuietTime - time.Second); !state.Loaded.Equal(before) || state.Failure == nil {
			t.Errorf("half written: %+v", state)
		}
		if state := w.look(source.QuietTime - time.Second); !state.Loaded.Equal(before) {
			t.Errorf("half written: %+v", state)
		}
	}
	w.write("a.crl", next)
	if state := w.look(0); !state.Loaded.Equal(w.now) || state.Failure != nil {
		t.Errorf("written: %+v", state)
	}
	if got := strings.Join(w.reports, "\n"); got != "a.crl: <nil>" {
		t.Errorf("reported %q", got)
	}
}

// Verified and unverified CRLs count in the next configuration.
func TestCRLSourceTakesOverVerifiedAndUnverified(t *testing.T) {
	ca, forger := testpki.MustCA(t), testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	genuine := makeCRL(t, ca, now, crlNumber(5), crlRevokes(1, leaf), crlDates(now, now.Add(24*time.Hour)))
	forged := makeCRL(t, forger, now, crlNumber(9))
	w := newCRLWorld(t, nil, crlURL)
	w.web[crlURL] = genuine
	w.refresh(0, "<nil>")
	w.expect(leaf, ca.Cert, true, true)
	w.web[crlURL] = forged
	w.refresh(time.Hour, "<nil>")
	if p := w.locations[0]; len(p.verified) != 1 || len(p.unverified) != 1 {
		t.Fatalf("%d proven, %d not", len(p.verified), len(p.unverified))
	}
	for range 2 {
		next := w.source(nil, crlURL)
		next.TakeOver(w.CRLSource)
		w.CRLSource = next
		w.expect(leaf, ca.Cert, true, true)
	}
	w.web[crlURL] = makeCRL(t, ca, w.now, crlNumber(4))
	w.refresh(time.Hour, "goes back from 5 to 4")
	w.expect(leaf, ca.Cert, true, true)
}

// A shorter refresh applies to CRLs that were fetched before it.
func TestCRLSourceShorterRefresh(t *testing.T) {
	ca := testpki.MustCA(t)
	for name, test := range map[string]struct{ refresh, age, want time.Duration }{
		"shorter":          {10 * time.Minute, time.Minute, 9 * time.Minute},
		"shorter, overdue": {10 * time.Minute, 30 * time.Minute, -20 * time.Minute},
		"longer":           {2 * time.Hour, time.Minute, 59 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCRLWorld(t, nil, crlURL)
			w.web[crlURL] = makeCRL(t, ca, now, crlDates(now, now.Add(24*time.Hour)))
			w.refresh(0, "crl: ")
			next := w.source(func(c *CRLConfig) { c.Refresh = test.refresh }, crlURL)
			next.TakeOver(w.CRLSource)
			if got := next.Next().Sub(w.now.Add(test.age)); got != test.want {
				t.Errorf("due after %s, want %s", got, test.want)
			}
		})
	}
	w := newCRLWorld(t, nil, crlURL)
	w.refresh(0, "404")
	next := w.source(nil, crlURL)
	if next.TakeOver(w.CRLSource); !next.Next().IsZero() {
		t.Errorf("what was never fetched is due at %s, not at once", next.Next())
	}
}

// The nextUpdate of a CRL that may be forged is not reported.
func TestCRLStatesShowNextUpdateOfVerifiedCRLs(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	end := now.Add(24 * time.Hour).Truncate(time.Second)
	w := newCRLWorld(t, nil, crlURL)
	w.web[crlURL] = makeCRL(t, ca, now, crlNumber(5), crlDates(now, end))
	w.refresh(0, "<nil>")
	w.expect(leaf, ca.Cert, false, true)
	w.web[crlURL] = makeCRL(t, testpki.MustCA(t), now, crlNumber(9), crlDates(now, now.Add(10000*time.Hour)))
	w.refresh(time.Hour, "<nil>")
	if state := w.States()[0]; !state.NextUpdate.Equal(end) {
		t.Errorf("it ends at %s, want %s", state.NextUpdate, end)
	}
}
