package revocation

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// look looks at the files after a while, and returns the state of the first.
func (w *crlWorld) look(after time.Duration) CRLPlaceState {
	w.now = w.now.Add(after)
	w.PollFiles()
	return w.States()[0]
}

// What is still being written is not shouted about, and a file that is readable
// and has not changed is fresh.
func TestCRLSourceFileIsWritten(t *testing.T) {
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
		if state := w.look(source.QuietTime - time.Second); !state.Loaded.Equal(before) || state.Failure == "" {
			t.Errorf("half written: %+v", state)
		}
		if state := w.look(source.QuietTime - time.Second); !state.Loaded.Equal(before) {
			t.Errorf("half written: %+v", state)
		}
	}
	w.write("a.crl", next)
	if state := w.look(0); !state.Loaded.Equal(w.now) || state.Failure != "" {
		t.Errorf("written: %+v", state)
	}
	if got := strings.Join(w.reports, "\n"); got != "a.crl: <nil>" {
		t.Errorf("reported %q", got)
	}

	// broken for good, gone, and back
	w.write("a.crl", good[:40])
	w.look(0)
	w.quiet("does not parse")
	path := filepath.Join(w.dir, "a.crl")
	for _, content := range [][]byte{good[:40], next} {
		w.write("a.crl", content)
		w.look(time.Minute)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		before := w.look(0).Loaded
		w.quiet("no such file")
		w.write("a.crl", content)
		state, fresh := w.look(time.Second), len(content) == len(next)
		if state.Loaded.Equal(w.now) != fresh || !fresh && !state.Loaded.Equal(before) || (state.Failure == "") != fresh {
			t.Errorf("%d octets are back: %+v", len(content), state)
		}
	}
	if err := w.LoadFiles(); err != nil {
		t.Error(err)
	}
}

// What has been verified, and what has not, counts in the next configuration.
func TestCRLSourceTakesOverWhatIsProven(t *testing.T) {
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
	if p := w.places[0]; len(p.proven) != 1 || len(p.unproven) != 1 {
		t.Fatalf("%d proven, %d not", len(p.proven), len(p.unproven))
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

// A place that is spelt in another way does not forget how far its CRL was.
func TestCRLSourceTakesOverUnderAnotherName(t *testing.T) {
	ca, other := testpki.MustCA(t), testpki.MustCA(t, testpki.CommonName("Other"))
	leaf, ofOther := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, other).Cert
	revoking := makeCRL(t, ca, now, crlNumber(5), crlRevokes(1, leaf))
	old := makeCRL(t, ca, now, crlNumber(4))
	point := func(url string) crlOption {
		name := contextual(t, 0, true, contextual(t, 0, true, contextual(t, 6, false, []byte(url))))
		return crlExtension(oidIssuingDistributionPoint, true, sequence(t, name))
	}
	for name, test := range map[string]struct {
		places []string // of the configurations after the first
		then   []byte
		want   string
		// revoked tells what becomes of the leaf
		revoked bool
	}{
		"goes back":              {[]string{"./a.crl"}, old, "goes back from 5 to 4", true},
		"goes back, later":       {[]string{"http://ca.example:80/crl", "./a.crl"}, old, "goes back from 5 to 4", true},
		"the same":               {[]string{"./a.crl"}, revoking, "<nil>", true},
		"goes on":                {[]string{"./a.crl"}, makeCRL(t, ca, now, crlNumber(6)), "<nil>", false},
		"of another CA":          {[]string{"./a.crl"}, makeCRL(t, other, now, crlNumber(1)), "<nil>", false},
		"of a forger":            {[]string{"./a.crl"}, makeCRL(t, testpki.MustCA(t), now, crlNumber(1)), "<nil>", false},
		"of part of the CA":      {[]string{"./a.crl"}, makeCRL(t, ca, now, crlNumber(1), point("http://p")), "<nil>", false},
		"the old place is there": {[]string{"a.crl ./a.crl"}, revoking, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCRLWorld(t, nil, "a.crl")
			w.write("a.crl", revoking)
			w.refresh(0, "a.crl: <nil>")
			w.expect(leaf, ca.Cert, true, true)
			dir := w.dir
			for i, places := range test.places {
				next := w.source(func(c *CRLConfig) {
					for i, place := range c.Places {
						if strings.HasPrefix(place, dir) { // as it is written, not cleaned
							c.Places[i] = dir + "/" + strings.Fields(places)[i]
						}
					}
				}, strings.Fields(places)...)
				next.TakeOver(w.CRLSource)
				w.CRLSource = next
				if i == len(test.places)-1 {
					w.write("a.crl", test.then)
				}
			}
			w.reports = nil
			w.look(0)
			if !strings.Contains(strings.Join(w.reports, "\n"), "nil") {
				w.quiet(test.want)
			}
			if status, _ := w.Set().Status(leaf, ca.Cert, w.now); status.Revoked != test.revoked {
				t.Errorf("revoked %v", status.Revoked)
			}
			if name == "of another CA" {
				w.expect(ofOther, other.Cert, false, true)
			}
			if name == "goes back" && w.States()[0].Entries != 1 {
				t.Errorf("in force is %+v", w.States()[0])
			}
		})
	}
}

// A shorter refresh counts for what was fetched before it.
func TestCRLSourceShorterRefresh(t *testing.T) {
	ca := testpki.MustCA(t)
	for name, test := range map[string]struct{ refresh, age, want time.Duration }{
		"shorter":             {10 * time.Minute, time.Minute, 9 * time.Minute},
		"shorter, overdue":    {10 * time.Minute, 30 * time.Minute, -20 * time.Minute},
		"longer":              {2 * time.Hour, time.Minute, 59 * time.Minute},
		"never fetched":       {10 * time.Minute, 0, time.Minute},
		"shorter than a miss": {time.Minute, 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCRLWorld(t, nil, crlURL)
			if test.age > 0 {
				w.web[crlURL] = makeCRL(t, ca, now, crlDates(now, now.Add(24*time.Hour)))
			}
			w.refresh(0, "crl: ")
			next := w.source(func(c *CRLConfig) { c.Refresh = test.refresh }, crlURL)
			next.TakeOver(w.CRLSource)
			if got := next.Next().Sub(w.now.Add(test.age)); got != test.want {
				t.Errorf("due after %s, want %s", got, test.want)
			}
		})
	}
}

// Places that have another name after every reload remember one CRL of each CA,
// however many reloads there are.
func TestCRLSourceInheritsOneOfEach(t *testing.T) {
	cas := []*testpki.CA{testpki.MustCA(t, testpki.CommonName("A")), testpki.MustCA(t, testpki.CommonName("B")), testpki.MustCA(t, testpki.CommonName("C"))}
	names := func(round int) (places []string) {
		for i := range cas {
			places = append(places, fmt.Sprintf("http://ca.example/%d?round=%d", i, round))
		}
		return places
	}
	w := newCRLWorld(t, nil, names(0)...)
	for round := range 6 {
		if round > 0 {
			next := w.source(nil, names(round)...)
			next.TakeOver(w.CRLSource)
			w.CRLSource = next
		}
		for i, ca := range cas {
			w.web[names(round)[i]] = makeCRL(t, ca, w.now, crlNumber(int64(round+1)))
		}
		w.Refresh(t.Context())
		for _, ca := range cas {
			w.expect(testpki.MustIssue(t, ca).Cert, ca.Cert, false, true)
		}
		for _, p := range w.places {
			if len(p.inherited) > len(cas) {
				t.Errorf("round %d: %d are remembered of other places", round, len(p.inherited))
			}
		}
	}
}

// The end of a CRL that anybody may have made is not what operators are told.
func TestCRLSourceTellsTheEndOfWhatIsProven(t *testing.T) {
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
