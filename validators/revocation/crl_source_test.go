package revocation

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const crlURL = "http://ca.example/crl"

// crlWorld is a CRLSource with a clock, a directory and a web.
type crlWorld struct {
	*CRLSource
	t   *testing.T
	dir string

	mu      sync.Mutex
	now     time.Time
	web     map[string][]byte
	fetched int
	reports []string
	used    []*CRLSet
}

func newCRLWorld(t *testing.T, change func(*CRLConfig), places ...string) *crlWorld {
	t.Helper()
	w := &crlWorld{t: t, dir: t.TempDir(), now: now.Truncate(time.Second), web: make(map[string][]byte)}
	w.CRLSource = w.source(change, places...)
	return w
}

func (w *crlWorld) source(change func(*CRLConfig), places ...string) *CRLSource {
	w.t.Helper()
	config := CRLConfig{
		Locations: places,
		Fetch: func(_ context.Context, url string) ([]byte, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.fetched++
			if content, ok := w.web[url]; ok {
				return content, nil
			}
			return nil, errors.New("the server answers 404 instead of 200")
		},
		Now:    func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		Jitter: func() float64 { return 0 },
		Report: func(place string, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports = append(w.reports, fmt.Sprintf("%s: %v", filepath.Base(place), err))
		},
		Use: func(set *CRLSet) { w.used = append(w.used, set) },
	}
	for i, place := range places {
		if !strings.Contains(place, "://") {
			config.Locations[i] = filepath.Join(w.dir, place)
		}
	}
	if change != nil {
		change(&config)
	}
	made, err := NewCRLSource(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

func (w *crlWorld) write(name string, content []byte) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chtimes(path, w.now, w.now); err != nil {
		w.t.Fatal(err)
	}
}

// silence expects no report.
const silence = "no report"

// refresh refreshes after a while, and expects reports that contain want.
func (w *crlWorld) refresh(after time.Duration, want string) {
	w.t.Helper()
	w.now, w.reports = w.now.Add(after), nil
	w.Refresh(w.t.Context())
	got := strings.Join(w.reports, "\n")
	if want == silence && got != "" || want != silence && !strings.Contains(got, want) {
		w.t.Errorf("reported %q, want %q", got, want)
	}
}

// quiet polls the files until they have been quiet, and expects a report then.
func (w *crlWorld) quiet(want string) {
	w.t.Helper()
	w.now, w.reports = w.now.Add(source.QuietTime-time.Millisecond), nil
	if w.PollFiles(); len(w.reports) > 0 {
		w.t.Errorf("reported %q of a file that may only be half written", w.reports)
	}
	w.now = w.now.Add(time.Millisecond)
	if w.PollFiles(); !strings.Contains(strings.Join(w.reports, "\n"), want) {
		w.t.Errorf("reported %q, want %q", w.reports, want)
	}
}

// expect checks the status of a certificate according to the CRLs in force.
func (w *crlWorld) expect(cert, issuer *x509.Certificate, revoked, fresh bool) {
	w.t.Helper()
	if len(w.used) == 0 {
		w.t.Fatal("nothing is in force")
	}
	for _, set := range []*CRLSet{w.used[len(w.used)-1], w.CRLs()} {
		status, err := set.statusOf(cert, issuer, w.now)
		if status.Revoked != revoked || w.now.Before(status.Until) != fresh {
			w.t.Errorf("%+v (%v), want revoked %v, fresh %v", status, err, revoked, fresh)
		}
	}
}

func TestCRLSourceLoadsFilesAndURLs(t *testing.T) {
	one, two := testpki.MustCA(t, testpki.CommonName("One")), testpki.MustCA(t, testpki.CommonName("Two"))
	ofOne, ofTwo := testpki.MustIssue(t, one).Cert, testpki.MustIssue(t, two).Cert
	w := newCRLWorld(t, nil, "one.crl", crlURL)
	w.write("one.crl", makeCRL(t, one, now, crlRevokes(1, ofOne)))
	w.web[crlURL] = makeCRL(t, two, now)
	w.refresh(0, "one.crl: <nil>\ncrl: <nil>")
	w.expect(ofOne, one.Cert, true, true)
	w.expect(ofTwo, two.Cert, false, true)
	for i, want := range []CRLState{
		{filepath.Join(w.dir, "one.crl"), w.now, w.now.Add(time.Hour), 1, nil, source.LookInterval},
		{crlURL, w.now, w.now.Add(time.Hour), 0, nil, w.States()[1].Refresh},
	} {
		if got := w.States()[i]; got.Location != want.Location || !got.Loaded.Equal(want.Loaded) || !got.NextUpdate.Equal(want.NextUpdate) || got.Entries != want.Entries || got.Failure != nil || got.Refresh != want.Refresh || got.Refresh <= 0 || got.Refresh > time.Hour {
			t.Errorf("%+v, want %+v", got, want)
		}
	}

	// CRLs that have not changed are not used again.
	used := len(w.used)
	w.refresh(time.Second, silence)
	w.refresh(54*time.Minute, "crl: <nil>")
	if len(w.used) != used || w.fetched != 2 {
		t.Errorf("%d times in force, %d fetches", len(w.used), w.fetched)
	}
	w.write("one.crl", makeCRL(t, one, w.now, crlNumber(2)))
	w.refresh(0, "one.crl: <nil>")
	w.expect(ofOne, one.Cert, false, true)
}

func TestCRLSourceUsesNothingTwice(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	w := newCRLWorld(t, nil, crlURL)
	w.web[crlURL] = makeCRL(t, ca, now, crlDates(now, now.Add(24*time.Hour)))
	for range 3 { // before it is used, and after
		w.refresh(time.Hour, "crl: <nil>")
	}
	w.expect(leaf, ca.Cert, false, true)
	w.refresh(time.Hour, "crl: <nil>")
	w.expect(leaf, ca.Cert, false, true)
	if len(w.used) != 1 {
		t.Errorf("%d times in force", len(w.used))
	}
}

func TestBrokenCRLKeepsThePreviousOne_B4(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	good := makeCRL(t, ca, now, crlRevokes(1, leaf), crlDates(now, now.Add(24*time.Hour)))
	w := newCRLWorld(t, func(c *CRLConfig) { c.Refresh = time.Minute }, "a.crl", crlURL)
	w.write("a.crl", good)
	w.web[crlURL] = good
	w.refresh(0, "")
	for _, broken := range []struct {
		content []byte
		want    string
	}{
		{nil, "empty"}, {good[:len(good)/2], "invalid CRL"}, {ca.PEM(), "PEM block"}, {[]byte("<html>"), "not a CRL"},
		{append(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}), "-----BEGIN X509 CRL-----\nZm9v\n-----END X509 CRL-----\n"...), "invalid CRL"},
	} {
		w.write("a.crl", broken.content)
		w.web[crlURL] = broken.content
		w.refresh(time.Minute, "crl: ")
		w.expect(leaf, ca.Cert, true, true)
		told := w.reports
		w.quiet("a.crl: ")
		for _, report := range append(told, w.reports...) {
			if !strings.Contains(report, broken.want) {
				t.Errorf("%s, want %q", report, broken.want)
			}
		}
		if err := w.LoadFiles(); err == nil || !strings.Contains(err.Error(), "a.crl: ") || !strings.Contains(err.Error(), broken.want) {
			t.Errorf("%v, want %q", err, broken.want)
		}
	}
	delete(w.web, crlURL)
	if err := os.Remove(filepath.Join(w.dir, "a.crl")); err != nil {
		t.Fatal(err)
	}
	w.refresh(time.Minute, "404")
	w.quiet("a.crl: ")
	w.expect(leaf, ca.Cert, true, true)
	w.refresh(time.Second, silence) // a file's failure is reported once
	w.refresh(time.Minute, "404")
	for _, state := range w.States() {
		if state.Failure == nil || state.Entries != 1 || !state.Loaded.Equal(now.Truncate(time.Second)) {
			t.Errorf("%+v", state)
		}
	}
	w.write("a.crl", good)
	w.web[crlURL] = good
	w.refresh(time.Minute, "a.crl: <nil>\ncrl: <nil>")
	if err := w.LoadFiles(); err != nil {
		t.Error(err)
	}
}

func TestCRLSourceRefusesMissingFileAndBadAddress_B4(t *testing.T) {
	w := newCRLWorld(t, nil, "missing.crl", crlURL)
	if err := w.LoadFiles(); err == nil || !strings.Contains(err.Error(), "missing.crl") {
		t.Errorf("%v", err)
	}
	if w.fetched != 0 || len(w.used) != 0 {
		t.Error("more than files were loaded")
	}
	for place, want := range map[string]string{"": "empty", "ldap://ca/cn=crl": "not an http or https URL", "http://": "not an http"} {
		_, err := NewCRLSource(CRLConfig{Locations: []string{place}})
		wantError(t, err, want)
	}
}

// Metrics distinguish the locations of a realm by their names.
func TestCRLSourceRefusesDuplicateLocations(t *testing.T) {
	for _, places := range [][]string{{"a.crl", "b.crl", "a.crl"}, {"http://u:one@crl.test/", "http://u:two@crl.test/"}} {
		_, err := NewCRLSource(CRLConfig{Locations: places})
		wantError(t, err, "named twice")
	}
}

// TestCRLLocationsThatDifferInAQueryValue checks that such locations have different
// names, although the values are not shown.
func TestCRLLocationsThatDifferInAQueryValue_S10(t *testing.T) {
	s, err := NewCRLSource(CRLConfig{Locations: []string{"http://crl.test/?ca=1", "http://crl.test/?ca=2", "http://crl.test/?ca=3"}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, state := range s.States() {
		names = append(names, state.Location)
	}
	if got := strings.Join(names, " "); got != "http://crl.test/?ca=… http://crl.test/?ca=… (2) http://crl.test/?ca=… (3)" {
		t.Error(got)
	}
}

func TestCRLSourceNumberDoesNotGoBack(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	// A genuine old CRL, still fresh, from before the certificate was revoked.
	old := makeCRL(t, ca, now, crlNumber(4), crlDates(now.Add(-time.Hour), now.Add(24*time.Hour)))
	revoking := makeCRL(t, ca, now, crlNumber(5), crlRevokes(1, leaf))
	next := makeCRL(t, ca, now, crlNumber(6))
	for _, used := range []bool{true, false} {
		for _, place := range []string{"a.crl", crlURL} {
			t.Run(fmt.Sprintf("%s, used %v", filepath.Base(place), used), func(t *testing.T) {
				w := newCRLWorld(t, nil, place)
				w.web[crlURL] = revoking
				w.write("a.crl", revoking)
				w.refresh(0, "<nil>")
				if used {
					w.expect(leaf, ca.Cert, true, true)
				}
				w.web[crlURL] = old
				w.write("a.crl", old)
				w.refresh(54*time.Minute, "")
				told := w.reports
				w.quiet("")
				if got := strings.Join(append(told, w.reports...), "\n"); !strings.Contains(got, "goes back from 5 to 4") {
					t.Errorf("reported %q", got)
				}
				w.expect(leaf, ca.Cert, true, true)
				if state := w.States()[0]; !strings.Contains(fmt.Sprint(state.Failure), "goes back") {
					t.Errorf("%+v", state)
				}
				w.now = w.now.Add(time.Minute)
				w.Refresh(t.Context())
				w.expect(leaf, ca.Cert, true, true)
				if state := w.States()[0]; !strings.Contains(fmt.Sprint(state.Failure), "goes back") {
					t.Errorf("%+v", state)
				}
				w.web[crlURL] = next
				w.write("a.crl", next)
				w.refresh(time.Minute, "<nil>")
				w.expect(leaf, ca.Cert, false, true)
			})
		}
	}
}

// A CRL forged on an unprotected connection displaces no other and keeps none out.
func TestCRLSourceForgeryDisplacesNothing(t *testing.T) {
	ca, forger := testpki.MustCA(t), testpki.MustCA(t) // of one name
	leaf := testpki.MustIssue(t, ca).Cert
	genuine := makeCRL(t, ca, now, crlNumber(5), crlRevokes(1, leaf))
	forged := makeCRL(t, forger, now, crlNumber(1e18), crlDates(now, now.Add(1000*time.Hour)))
	next := makeCRL(t, ca, now.Add(time.Minute), crlNumber(6), crlRevokes(1, leaf))
	for _, used := range []bool{true, false} {
		t.Run(fmt.Sprintf("used %v", used), func(t *testing.T) {
			w := newCRLWorld(t, func(c *CRLConfig) { c.Refresh = time.Second }, crlURL)
			get := func(content []byte, want string) {
				t.Helper()
				w.web[crlURL] = content
				w.refresh(time.Second, want)
			}
			get(genuine, "<nil>")
			if used {
				w.expect(leaf, ca.Cert, true, true)
				get(forged, "<nil>")
				w.expect(leaf, ca.Cert, true, true)
				get(forged, "<nil>")
				w.expect(leaf, ca.Cert, true, true)
			} else {
				get(forged, "<nil>")
			}
			get(genuine, "")
			w.expect(leaf, ca.Cert, true, true)
			get(next, "")
			w.expect(leaf, ca.Cert, true, true)
			get(next, "<nil>")
			if n := len(w.locations[0].verified); n != 1 || len(w.locations[0].unverified) != 0 {
				t.Errorf("%d proven and %d unproven CRLs are kept", n, len(w.locations[0].unverified))
			}
			for i := range 20 {
				get(makeCRL(t, testpki.MustCA(t), now, crlNumber(int64(100-i))), "")
			}
			if n := len(w.locations[0].verified) + len(w.locations[0].unverified); n > 3 {
				t.Errorf("%d CRLs are kept", n)
			}
			w.expect(leaf, ca.Cert, true, true)
		})
	}
}

func TestCRLSourceOfAnotherKey(t *testing.T) {
	old, renewed := testpki.MustCA(t), testpki.MustCA(t) // of one name
	ofOld, ofNew := testpki.MustIssue(t, old).Cert, testpki.MustIssue(t, renewed).Cert
	w := newCRLWorld(t, func(c *CRLConfig) { c.Refresh = time.Second }, crlURL)
	for i := range int64(4) {
		ca := []*testpki.CA{old, renewed}[i%2]
		w.web[crlURL] = makeCRL(t, ca, w.now, crlNumber(100+i), crlRevokes(1, ofOld, ofNew))
		w.refresh(time.Second, "<nil>")
		w.expect(ofOld, old.Cert, true, true)
		if i > 0 {
			w.expect(ofNew, renewed.Cert, true, true)
		}
	}
	w.web[crlURL] = makeCRL(t, old, w.now, crlNumber(50))
	w.refresh(time.Second, "goes back from 102 to 50")
	w.expect(ofOld, old.Cert, true, true)
}
