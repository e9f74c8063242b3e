package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// DefaultCRLRefresh is how often CRLs are fetched.
	DefaultCRLRefresh = time.Hour
	// minCRLRefresh is the shortest time between two fetches, if Refresh is not
	// shorter, also after one that has failed.
	minCRLRefresh = time.Minute
)

// CRLConfig says where CRLs come from.
type CRLConfig struct {
	// Places is the files, and the http and https URLs, of CRLs in DER or PEM.
	Places []string
	// Refresh is how often URLs are fetched; sooner where nextUpdate comes
	// sooner, so that a CRL is replaced while it is fresh, and after a minute
	// where that has failed. Default: [DefaultCRLRefresh].
	Refresh time.Duration
	// Fetch gets a CRL from a URL. Default: [Fetcher.CRL].
	Fetch func(ctx context.Context, url string) ([]byte, error)
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
	// Jitter returns a number from 0 to 1, by a tenth of which a fetch comes
	// earlier, so that servers do not all fetch at once. Default: a random one.
	Jitter func() float64
	// Report, if set, is told of every fetch of a URL and every change of a
	// file: nil, or why its CRL is not in force, while the one before it stays
	// so. Of a file that fails it is told once, when the file has been quiet:
	// it may only be half written. It may be called from several goroutines.
	Report func(place string, err error)
	// Warn, if set, is told of what is wrong with a CRL that is in force, as
	// [CRLSource.Watch] finds it.
	Warn func(place, warning string)
	// Use, if set, is given the CRLs whenever there are others, one call at a
	// time. It is usually [Checker.SetCRLs], and must not call the
	// source.
	Use func(*CRLSet)
}

// CRLSource keeps the CRLs of files and URLs. It starts nothing of its own: who
// has it calls [CRLSource.PollFiles] often and [CRLSource.Refresh] at
// [CRLSource.Next].
//
// A CRL is read before it takes the place of another, and only one with a
// higher number (RFC 5280 §5.2.3), and the signature of the same CA, makes that
// one forgotten: until it has been verified, which needs a chain, what came
// over the network proves nothing and displaces nothing.
type CRLSource struct {
	config CRLConfig
	places []*crlPlace

	mu sync.Mutex // guards what is in places and the calls of Use

	// watching is held by who watches for what is wrong.
	watching sync.Mutex
	// cas are those that the CRLs were last compared with.
	cas []*x509.Certificate
}

// CRLPlaceState tells of a file or a URL, for those who operate it.
type CRLPlaceState struct {
	Place string
	// Loaded is when the CRL was last read or fetched without an error. Of a
	// file that has not changed it is when that was last looked at.
	Loaded time.Time
	// NextUpdate is when the CRL in force is no longer fresh, zero without one.
	NextUpdate time.Time
	// Entries is the number of revoked certificates.
	Entries int
	// Failure is why the last attempt failed, "" if it did not.
	Failure string
}

// NewCRLSource returns a source that has loaded nothing yet.
func NewCRLSource(config CRLConfig) (*CRLSource, error) {
	if config.Refresh <= 0 {
		config.Refresh = DefaultCRLRefresh
	}
	if config.Fetch == nil {
		config.Fetch = NewFetcher(nil).CRL
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Jitter == nil {
		config.Jitter = rand.Float64
	}
	if config.Report == nil {
		config.Report = func(string, error) {}
	}
	if config.Warn == nil {
		config.Warn = func(string, string) {}
	}
	if config.Use == nil {
		config.Use = func(*CRLSet) {}
	}
	s := &CRLSource{config: config}
	for _, address := range config.Places {
		place := &crlPlace{address: address, name: address}
		switch {
		case address == "":
			return nil, errors.New("the file or URL of a CRL is empty")
		case strings.Contains(address, "://"):
			if err := source.CheckURL(address); err != nil {
				return nil, err
			}
			parsed, _ := url.Parse(address)
			place.isURL, place.name = true, parsed.Redacted()
		default:
			place.file = source.NewWatched(address, MaxCRLSize, func(content []byte) error { return s.use(place, content) })
		}
		// its metrics would be the same as the other's, and all be lost for it
		if slices.ContainsFunc(s.places, func(other *crlPlace) bool { return other.name == place.name }) {
			return nil, fmt.Errorf("%s is named twice, or differs in a password only; name it once", place.name)
		}
		s.places = append(s.places, place)
	}
	return s, nil
}

// TakeOver copies what another source has of the same places, so that a new
// configuration begins with the CRLs of the old one and none goes back. It is
// called before anything is loaded.
func (s *CRLSource) TakeOver(old *CRLSource) {
	for _, place := range s.places {
		for _, before := range old.places {
			if before.address == place.address {
				place.takeOver(before, &old.mu, s.config.Refresh)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Use(s.set())
}

// LoadFiles reads the files that have changed, and returns the first failure:
// for a start, which a file that is missing, empty or broken is to prevent.
func (s *CRLSource) LoadFiles() error {
	s.PollFiles()
	for _, state := range s.States() {
		if state.Failure != "" && !strings.Contains(state.Place, "://") {
			return fmt.Errorf("CRL %s: %s", state.Place, state.Failure)
		}
	}
	return nil
}

// PollFiles reads the files that have changed. It costs one system call for
// each that has not.
func (s *CRLSource) PollFiles() {
	for _, place := range s.places {
		if place.isURL {
			continue
		}
		if report, err := place.file.Poll(s.config.Now()); report {
			s.config.Report(place.name, err)
		}
	}
}

// use puts in force what a file says.
func (s *CRLSource) use(place *crlPlace, content []byte) error {
	crl, err := ParseCRL(content)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(place, crl)
}

// Refresh reads the files that have changed and fetches the URLs that are due,
// which at first is all. URLs are fetched side by side; it returns when all
// have been, or have failed.
func (s *CRLSource) Refresh(ctx context.Context) {
	s.PollFiles()
	now := s.config.Now()
	var all sync.WaitGroup
	for _, place := range s.places {
		if !place.isURL || now.Before(s.due(place)) || !place.busy.TryLock() {
			continue
		}
		all.Go(func() {
			defer place.busy.Unlock()
			s.setBusy(place, now.Add(crlFetchTimeout))
			defer s.setBusy(place, time.Time{})
			s.fetch(ctx, place)
		})
	}
	all.Wait()
}

func (s *CRLSource) due(place *crlPlace) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if place.busyUntil.After(place.due) {
		return place.busyUntil
	}
	return place.due
}

func (s *CRLSource) setBusy(place *crlPlace, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	place.busyUntil = until
}

// URLs is the number of places that are to be fetched.
func (s *CRLSource) URLs() int {
	count := 0
	for _, place := range s.places {
		if place.isURL {
			count++
		}
	}
	return count
}

// Next returns when the first URL is to be fetched again; one that is being
// fetched does not count before it has had its time. It is zero if there are
// only files.
func (s *CRLSource) Next() time.Time {
	var next time.Time
	first := true
	for _, place := range s.places {
		if due := s.due(place); place.isURL && (first || due.Before(next)) {
			next, first = due, false
		}
	}
	return next
}

// fetch puts what a URL has in force, unless it fails to say.
func (s *CRLSource) fetch(ctx context.Context, place *crlPlace) {
	crl, err := source.Guard(func() (*CRL, error) {
		content, err := s.config.Fetch(ctx, place.address)
		if err != nil {
			return nil, err
		}
		return ParseCRL(content)
	})
	now := s.config.Now()
	shortest := min(minCRLRefresh, s.config.Refresh)
	wait := shortest

	s.mu.Lock()
	if err == nil {
		err = s.put(place, crl)
	}
	place.failure = err
	if err == nil {
		place.loaded = now
		wait = min(s.config.Refresh, crl.NextUpdate().Sub(now)/10*9)
	}
	wait -= time.Duration(s.config.Jitter() * float64(wait) / 10)
	place.due = now.Add(max(wait, shortest))
	s.mu.Unlock()
	s.config.Report(place.name, err)
}

// put puts a CRL in force, unless it is an old one.
func (s *CRLSource) put(place *crlPlace, crl *CRL) error {
	changed, err := place.accept(crl)
	if changed {
		s.config.Use(s.set())
	}
	return err
}

// Set returns the CRLs that are in force.
func (s *CRLSource) Set() *CRLSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set()
}

func (s *CRLSource) set() *CRLSet {
	var places [][]*CRL
	for _, place := range s.places {
		places = append(places, slices.Concat(place.proven, place.unproven))
	}
	return newCRLSet(places)
}

// States tells of every place, in the order of the configuration.
func (s *CRLSource) States() []CRLPlaceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]CRLPlaceState, len(s.places))
	for i, place := range s.places {
		loaded, failure := place.health()
		states[i] = CRLPlaceState{Place: place.name, Loaded: loaded}
		if failure != nil {
			states[i].Failure = failure.Error()
		}
		if crl := place.speaks(); crl != nil {
			states[i].NextUpdate, states[i].Entries = crl.NextUpdate(), crl.Len()
		}
		place.settle()
		for j, crl := range place.proven { // what is not proven may be forged
			if end := crl.NextUpdate(); j == 0 || end.Before(states[i].NextUpdate) {
				states[i].NextUpdate = end
			}
		}
	}
	return states
}
