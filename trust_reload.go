package mtlsauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	defaultPoolRefresh = time.Hour
	// poolRetry is how long a source that failed is left alone, if it is not
	// due sooner.
	poolRetry = time.Minute
	// poolTimeout is how long a module may take to load.
	poolTimeout = 30 * time.Second
)

func checkPoolRefresh(d caddy.Duration) error {
	if d < caddy.Duration(time.Minute) {
		return fmt.Errorf("%s is too short; use at least 1m", time.Duration(d))
	}
	return nil
}

// provisionTrust loads the trust pools. Without one, nobody is trusted.
func (realm *Realm) provisionTrust() (anchors, shadow *trust, err error) {
	if realm.TrustPoolRefresh != 0 {
		if err := checkPoolRefresh(realm.TrustPoolRefresh); err != nil {
			return nil, nil, fmt.Errorf("trust_pool_refresh '%s': %w", time.Duration(realm.TrustPoolRefresh), err)
		}
	}
	anchors = new(trust)
	if realm.TrustPoolRaw != nil {
		anchors, err = realm.loadTrust(wordTrustPool, realm.TrustPoolRaw, func(p *parts, t *trust) { p.trust = t })
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", wordTrustPool, err)
		}
	}
	if realm.ShadowTrustPoolRaw != nil {
		if realm.TrustPoolRaw == nil {
			return nil, nil, errors.New("shadow_trust_pool: the realm has no trust_pool that it could take the place of; add one, or make it the trust_pool")
		}
		shadow, err = realm.loadTrust(wordShadowPool, realm.ShadowTrustPoolRaw, func(p *parts, t *trust) { p.shadow = t })
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", wordShadowPool, err)
		}
		realm.shadow = newShadow(realm)
	}
	if realm.TrustPoolRefresh != 0 && !slices.ContainsFunc(realm.trustPools, (*trustPool).refreshes) {
		return nil, nil, errors.New("trust_pool_refresh has no effect: files are watched and what is inline does not change, and the realm has no other trust_pool; remove it")
	}
	return anchors, shadow, nil
}

// refreshes reports whether a source of the pool is loaded again from time to
// time.
func (p *trustPool) refreshes() bool {
	return slices.ContainsFunc(p.sources, func(s *trustSource) bool { return !s.watched() && !s.fixed() })
}

// poll looks after one source, which has a goroutine of its own.
func (p *trustPool) poll(s *trustSource) {
	now := p.realm.app.Now()
	switch {
	case s.watched():
		p.lookAtFiles(s, now)
	case !now.Before(s.due):
		p.loadAgain(s, now)
	}
}

// lookAtFiles takes what the files of the source say if they have changed.
func (p *trustPool) lookAtFiles(s *trustSource, now time.Time) {
	changed, broken := false, false
	for _, file := range s.files {
		complained := file.complaint
		other, err := file.look(now)
		changed = changed || other
		broken = broken || file.broken() != nil
		switch {
		case err != nil:
			p.report(s, err)
		case complained && file.broken() == nil:
			p.recovered(s)
		}
	}
	if changed || s.failure != "" && !now.Before(s.due) {
		loaded, err := p.filesNow(s)
		if err == nil {
			err = p.take(s, loaded)
		}
		s.due = now.Add(poolRetry)
		p.outcome(s, err)
	}
	if !broken && s.failure == "" {
		p.succeeded(s, now)
	}
}

// loadAgain loads a source again that cannot be watched.
func (p *trustPool) loadAgain(s *trustSource, now time.Time) {
	loaded, err := p.load(s)
	if err == nil {
		err = p.take(s, loaded)
	}
	p.outcome(s, err)
	if err != nil {
		s.due = now.Add(min(p.refresh, poolRetry))
		return
	}
	s.due = now.Add(p.refresh)
	p.succeeded(s, now)
}

// outcome logs a failure that is another than the last one, and the end of one.
func (p *trustPool) outcome(s *trustSource, err error) {
	switch {
	case err != nil && err.Error() != s.failure:
		s.failure = err.Error()
		p.report(s, err)
	case err == nil && s.failure != "":
		s.failure = ""
		p.recovered(s)
	}
}

// take puts what a source says now in the place of what it said. If the pool is
// the same as before, everything that is remembered stays; if the realm cannot
// be with the new one, the old one stays.
func (p *trustPool) take(s *trustSource, loaded loadedCAs) error {
	unused, err := p.swap(s, loaded)
	unused.cancel() // without the lock, for it may take its time
	return err
}

// swap returns what is of no more use.
func (p *trustPool) swap(s *trustSource, loaded loadedCAs) (unused loadedCAs, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return loaded, nil
	}
	before := s.loaded
	s.loaded = loaded
	next := p.combine()
	if next.roots.Equal(p.now.roots) {
		return before, nil
	}
	if err := p.realm.change(func(parts *parts) { p.set(parts, next) }); err != nil {
		s.loaded = before
		return loaded, err
	}
	p.now = next
	p.realm.app.logger.Info("the trust pool has changed",
		zap.String("realm", p.realm.name), zap.String("pool", p.word), zap.String("source", s.Provider), zap.Int("cas", next.cas),
		zap.Strings("added", subjectsWithout(loaded.certs, before.certs)), zap.Strings("removed", subjectsWithout(before.certs, loaded.certs)))
	return before, nil
}

// subjectsWithout are the subjects of certificates that are not among others, of
// the first few.
func subjectsWithout(certs, others []*x509.Certificate) []string {
	const most = 10
	known := make(map[string]struct{}, len(others))
	for _, cert := range others {
		known[string(cert.Raw)] = struct{}{}
	}
	var subjects []string
	for _, cert := range certs {
		if _, ok := known[string(cert.Raw)]; ok {
			continue
		}
		if len(subjects) == most {
			return append(subjects, "…")
		}
		subjects = append(subjects, validators.FormatDN(cert.RawSubject))
	}
	return subjects
}

func (p *trustPool) succeeded(s *trustSource, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.success = now
}

// lastSuccess is when the last of the sources that can change was last read
// without an error.
func (p *trustPool) lastSuccess() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest time.Time
	for _, s := range p.sources {
		if !s.fixed() || len(p.sources) == 1 {
			if oldest.IsZero() || s.success.Before(oldest) {
				oldest = s.success
			}
		}
	}
	return oldest
}

func (p *trustPool) report(s *trustSource, err error) {
	p.realm.app.logger.Error("a trust pool cannot be loaded again; the CAs it had stay in force",
		zap.String("realm", p.realm.name), zap.String("pool", p.word), zap.String("source", s.Provider), zap.Error(err))
}

func (p *trustPool) recovered(s *trustSource) {
	p.realm.app.logger.Info("the trust pool can be loaded again",
		zap.String("realm", p.realm.name), zap.String("pool", p.word), zap.String("source", s.Provider))
}

// close ends the instances of the modules. One that is being loaded is ended by
// who loads it.
func (p *trustPool) close() {
	p.mu.Lock()
	var ends []context.CancelFunc
	if !p.closed {
		for _, s := range p.sources {
			if s.loaded.cancel != nil { // a pool that did not load has it not
				ends = append(ends, s.loaded.cancel)
			}
		}
	}
	p.closed = true
	p.mu.Unlock()
	for _, end := range ends {
		end()
	}
}
