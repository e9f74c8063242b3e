package revocation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// defaultCRLRefresh is how often CRLs are fetched.
	defaultCRLRefresh = time.Hour
	// minCRLRefresh is the shortest time between two fetches, unless Refresh is
	// shorter, and the longest pause after one that has failed.
	minCRLRefresh = time.Minute
)

// CRLConfig configures a [CRLSource].
type CRLConfig struct {
	// Locations are files, and http and https URLs, of a CRL in DER, or of any number
	// of CRLs in PEM.
	Locations []string
	// Refresh is how often URLs are fetched. A CRL is fetched earlier when its
	// nextUpdate is earlier, so that it is replaced while it is fresh, and within
	// a minute after a fetch has failed. Default: [defaultCRLRefresh].
	Refresh time.Duration
	// Fetch gets a CRL from a URL. Default: a GET request within a minute.
	Fetch func(ctx context.Context, url string) ([]byte, error)
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
	// Jitter returns a number from 0 to 1. A fetch comes earlier by that many
	// tenths of the interval, so that servers do not all fetch at once. Default:
	// a random number.
	Jitter func() float64
	// Report, if set, is called after every fetch of a URL and every change of a
	// file: with nil, or with why its CRL is not in force while the previous one
	// stays so. The failure of a file is reported once, after two seconds,
	// because it may only be half written. Report may be called by several
	// goroutines at once.
	Report func(location string, err error)
	// ReportStale, ReportPartial and ReportForeign, if set, are called with what
	// [CRLSource.ReportProblems] finds: that a CRL in force is stale, that it vouches
	// for no certificate whatever its age, and that it does not cover the
	// certificates of a CA that has its name.
	ReportStale, ReportPartial, ReportForeign func(location string, err error)
	// ReportGone, if set, is called with the issuer of a CRL that a location provides no
	// more, although no other of its kind has replaced it. It stays in force.
	ReportGone func(location, issuer string)
	// ReportUncovered, if set, is called likewise with a CA that no CRL covers and
	// that is not one of Exempt.
	ReportUncovered func(ca *x509.Certificate)
	Exempt          Exempt
	// Use, if set, is called with the CRLs whenever they change, one call at a
	// time. It is usually [Checker.SetCRLs], and must not call the source.
	Use func(*CRLSet)
}

// CRLSource keeps the CRLs of files and URLs up to date. It starts nothing on
// its own: call [CRLSource.PollFiles] often and [CRLSource.Refresh] at
// [CRLSource.Next]. It may be used by several goroutines at once.
//
// A CRL displaces another of the same scope and location only if it has a higher
// number (RFC 5280 §5.2.3) and is signed by the same CA. Verifying the signature takes the
// certificate of the CA, which only a chain brings: until then, a CRL that came
// over the network proves nothing and displaces nothing.
type CRLSource struct {
	config    CRLConfig
	locations []*crlLocation

	first atomic.Pointer[firstFetch] // nil if nobody need wait for it

	mu sync.Mutex // guards the CRLs of the locations and the calls of Use

	reporting sync.Mutex // held by ReportProblems
	cas       *caIndex   // with which the CRLs were last compared
	untried   bool       // some location had not been read by then
	uncovered map[[sha256.Size]byte]bool
}

// CRLState describes the CRLs of a file or a URL.
type CRLState struct {
	// Location is the path, or the URL as [source.ShownURL] shows it.
	Location string
	// Loaded is when the CRL was last read or fetched without an error, changed
	// or not.
	Loaded time.Time
	// NextUpdate is when the first CRL in force is no longer fresh, zero without one.
	NextUpdate time.Time
	// Entries is the number of revoked certificates.
	Entries int
	// Failure is why the last attempt failed, nil if it did not.
	Failure error
	// Refresh is how often it is read or fetched.
	Refresh time.Duration
}

// NewCRLSource returns a source that has loaded nothing yet. It returns an error
// for an address that is empty, not http or https, or named twice.
func NewCRLSource(config CRLConfig) (*CRLSource, error) {
	if config.Refresh <= 0 {
		config.Refresh = defaultCRLRefresh
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
	config.Report = orSilent(config.Report)
	config.ReportStale, config.ReportForeign = orSilent(config.ReportStale), orSilent(config.ReportForeign)
	config.ReportPartial = orSilent(config.ReportPartial)
	if config.ReportGone == nil {
		config.ReportGone = func(string, string) {}
	}
	if config.ReportUncovered == nil {
		config.ReportUncovered = func(*x509.Certificate) {}
	}
	if config.Use == nil {
		config.Use = func(*CRLSet) {}
	}
	s := &CRLSource{config: config, cas: newCAIndex(nil)}
	for i, address := range config.Locations {
		location, err := s.newLocation(address)
		if err != nil {
			return nil, err
		}
		twice := func(other string) bool { return source.WithoutPasswords(other) == source.WithoutPasswords(address) }
		if slices.ContainsFunc(config.Locations[:i], twice) {
			return nil, fmt.Errorf("%s is named twice, or differs in a password only; name it once", location.name)
		}
		// the metrics of two locations with one name would collide
		shown := location.name
		for n := 2; slices.ContainsFunc(s.locations, func(other *crlLocation) bool { return other.name == location.name }); n++ {
			location.name = fmt.Sprintf("%s (%d)", shown, n)
		}
		s.locations = append(s.locations, location)
	}
	return s, nil
}

// TakeOver copies what another source has of the same locations, so that a new
// configuration begins with the CRLs of the old one and none goes back. Call it
// before anything is loaded.
func (s *CRLSource) TakeOver(old *CRLSource) {
	for i, location := range s.locations {
		for j, other := range old.locations {
			if s.config.Locations[i] == old.config.Locations[j] {
				location.takeOver(other, &old.mu)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Use(s.crlSet())
}

// LoadFiles reads the files that have changed, and returns the first failure,
// so that a configuration with a missing, empty or broken file is not loaded.
func (s *CRLSource) LoadFiles() error {
	s.PollFiles()
	for _, location := range s.locations {
		if location.file != nil && location.file.Failure() != nil {
			return fmt.Errorf("CRL %s: %w", location.name, location.file.Failure())
		}
	}
	return nil
}

// PollFiles reads the files that have changed. It costs one system call for
// each that has not.
func (s *CRLSource) PollFiles() {
	for _, location := range s.locations {
		if location.file == nil {
			continue
		}
		if report, err := location.file.Poll(s.config.Now()); report {
			s.config.Report(location.name, err)
		}
	}
}

// Refresh reads the files that have changed and fetches the URLs that are due,
// which at first is all. It fetches the URLs concurrently, and returns when all
// fetches have ended. It does not report those that ctx has ended.
func (s *CRLSource) Refresh(ctx context.Context) {
	s.PollFiles()
	now := s.config.Now()
	var all sync.WaitGroup
	for _, location := range s.locations {
		if location.url == nil || now.Before(location.url.Due()) {
			continue
		}
		all.Go(func() {
			if _, _, err := location.url.Refresh(ctx); err == nil || ctx.Err() == nil {
				s.config.Report(location.name, err)
			}
		})
	}
	all.Wait()
	if first := s.first.Load(); first != nil {
		first.end()
	}
}

// firstFetch is the fetch of what a source has never had.
type firstFetch struct {
	done chan struct{}
	end  func()
}

// Begin announces that [CRLSource.Refresh] is going to be called soon. If a URL has never
// been fetched, [CRLSource.Await] waits for that, at most for the given time.
func (s *CRLSource) Begin(most time.Duration) {
	if s.first.Load() != nil || !slices.ContainsFunc(s.locations, func(l *crlLocation) bool { return !l.tried() }) {
		return
	}
	first := &firstFetch{done: make(chan struct{})}
	first.end = sync.OnceFunc(func() { s.first.Store(nil); close(first.done) })
	s.first.Store(first)
	time.AfterFunc(most, first.end)
}

// Await waits for the first fetch, so that a start does not admit for a moment what a
// CRL has revoked. It costs nothing afterwards.
func (s *CRLSource) Await(ctx context.Context) {
	if first := s.first.Load(); first != nil {
		select {
		case <-first.done:
		case <-ctx.Done():
		}
	}
}

// load puts in force what a location provides: every CRL that can be read, unless it
// is older than the one it would replace.
func (s *CRLSource) load(location *crlLocation, content []byte) error {
	s.mu.Lock()
	known := location.current != nil && bytes.Equal(content, location.content)
	s.mu.Unlock()
	if known {
		return nil
	}
	crls, unreadable := parseCRLs(content)
	if len(crls) == 0 {
		return unreadable
	}
	for _, crl := range crls {
		crl.place = location.name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone, changed, err := location.add(crls, unreadable == nil)
	if changed {
		s.config.Use(s.crlSet())
	}
	for _, crl := range gone {
		s.config.ReportGone(location.name, source.Text(dn.Format(crl.list.RawIssuer), maxQuote))
	}
	if unreadable != nil {
		err = unreadable
	}
	if err == nil {
		location.content = content
	}
	return err
}

// URLs returns the number of URLs among the locations.
func (s *CRLSource) URLs() int {
	count := 0
	for _, location := range s.locations {
		if location.url != nil {
			count++
		}
	}
	return count
}

// Next returns when the next URL is due, or the end of the time that the fetch
// under way has. It returns the zero time if nothing has been fetched yet, or
// there are only files.
func (s *CRLSource) Next() time.Time {
	var due []time.Time
	for _, location := range s.locations {
		if location.url != nil {
			due = append(due, location.url.Due())
		}
	}
	if due == nil {
		return time.Time{}
	}
	return earliest(due...)
}

// CRLs returns the CRLs in force.
func (s *CRLSource) CRLs() *CRLSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crlSet()
}

func (s *CRLSource) crlSet() *CRLSet {
	var locations [][]*parsedCRL
	for _, location := range s.locations {
		locations = append(locations, location.inForce())
	}
	return newCRLSet(locations)
}

// States describes every location, in the order of the configuration.
func (s *CRLSource) States() []CRLState {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]CRLState, len(s.locations))
	for i, location := range s.locations {
		health := location.health()
		states[i] = CRLState{Location: location.name, Loaded: health.Success(), Failure: health.Failure(), Refresh: source.LookInterval}
		if location.url != nil {
			states[i].Refresh = location.url.Interval()
		}
		location.promoteVerified()
		counted := slices.Clone(location.verified)
		for _, crl := range location.unverified {
			if slices.Contains(location.current, crl) {
				counted = append(counted, crl)
			}
		}
		for _, crl := range counted {
			states[i].Entries += len(crl.revoked)
		}
		genuine := slices.DeleteFunc(slices.Clone(location.current), func(crl *parsedCRL) bool { return crl.signer.Load() == nil })
		switch { // an unverified CRL may be forged
		case len(genuine) > 0:
			states[i].NextUpdate = nextUpdate(genuine)
		case len(location.verified) > 0:
			states[i].NextUpdate = nextUpdate(location.verified)
		default:
			states[i].NextUpdate = nextUpdate(location.current)
		}
	}
	return states
}
