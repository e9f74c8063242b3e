package trustpool

import (
	"crypto/x509"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// poolSource is one module that CA certificates come from. The module `combined` is
// not a source: each of its sources is reloaded on its own, so that a slow or broken
// one does not hold up the others.
type poolSource struct {
	loader
	pool *Pool

	// what follows is guarded by the mutex of the pool
	loaded  loaded
	success time.Time
	failing string // why it could not be used last
	// due and failure belong to the goroutine that loads the source
	due     time.Time
	failure string
}

func (s *poolSource) loadFirst() error {
	if err := loadPKI(s.config.Context, s.Provider); err != nil {
		return err
	}
	if s.watched() {
		if err := s.openFiles(); err != nil {
			return err
		}
	}
	first, err := s.load()
	if err != nil {
		return err
	}
	now := s.config.Now()
	s.loaded, s.success, s.due = first, now, now.Add(s.config.Refresh)
	return nil
}

// poll keeps the source up to date. Each has a goroutine of its own.
func (s *poolSource) poll() {
	now := s.config.Now()
	switch {
	case s.watched():
		s.lookAtFiles(now)
	case !now.Before(s.due):
		s.loadAgain(now)
	}
}

// lookAtFiles puts the content of the source's files to use if they have changed.
func (s *poolSource) lookAtFiles(now time.Time) {
	changed, broken := false, false
	for _, file := range s.files {
		other, report, err := file.look(now)
		changed, broken = changed || other, broken || err != nil
		if err != nil {
			s.note(now, err.Error())
		}
		if report {
			s.noteLoad(err)
		}
	}
	if changed || s.failure != "" && !now.Before(s.due) {
		next, err := s.readFiles()
		if err == nil {
			err = s.take(next)
		}
		s.due = now.Add(retryInterval)
		s.outcome(err)
	}
	switch {
	case s.failure != "":
		s.note(now, s.failure)
	case !broken:
		s.note(now, "")
	}
}

// loadAgain reloads a source that cannot be watched, unless the configuration has
// ended, and so have its modules.
func (s *poolSource) loadAgain(now time.Time) {
	ended := s.config.Context.Err
	if ended() != nil {
		return
	}
	next, err := s.load()
	if ended() != nil {
		if err == nil {
			next.cancel()
		}
		return
	}
	if err == nil {
		err = s.take(next)
	}
	s.outcome(err)
	if err != nil {
		s.note(now, s.failure)
		s.due = now.Add(min(s.config.Refresh, retryInterval))
		return
	}
	s.due = now.Add(s.config.Refresh)
	s.note(now, "")
}

// outcome logs a failure that differs from the last one, and the end of one.
func (s *poolSource) outcome(err error) {
	switch {
	case err != nil && err.Error() != s.failure:
		s.failure = err.Error()
		s.noteLoad(err)
	case err == nil && s.failure != "":
		s.failure = ""
		s.noteLoad(nil)
	}
}

// take replaces the certificates of a source. If the pool stays the same, its user
// is not told; if the user refuses the new pool, the previous one stays.
func (s *poolSource) take(next loaded) error {
	unused, err := s.pool.swap(s, next)
	unused.cancel() // without the lock, because it may take long
	return err
}

// swap returns what is no longer used.
func (p *Pool) swap(s *poolSource, next loaded) (unused loaded, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return next, nil
	}
	before := s.loaded
	s.loaded = next
	trust := p.combine()
	if trust.roots.Equal(p.trust.roots) {
		return before, nil
	}
	if err := p.config.Use(trust); err != nil {
		s.loaded = before
		return next, err
	}
	p.trust = trust
	p.config.Logger.Info("trust pool changed",
		zap.String("source", s.Provider), zap.Int("cas", len(trust.Certificates)),
		zap.Strings("added", subjects(without(next.certs, before.certs))), zap.Strings("removed", subjects(without(before.certs, next.certs))))
	return before, nil
}

// without returns the certificates that are not among others.
func without(certs, others []*x509.Certificate) (rest []*x509.Certificate) {
	known := make(map[string]bool, len(others))
	for _, cert := range others {
		known[string(cert.Raw)] = true
	}
	for _, cert := range certs {
		if !known[string(cert.Raw)] {
			rest = append(rest, cert)
		}
	}
	return rest
}

// subjects returns the subjects of at most ten certificates.
func subjects(certs []*x509.Certificate) (texts []string) {
	const most = 10
	for _, cert := range certs[:min(len(certs), most)] {
		texts = append(texts, dn.Format(cert.RawSubject))
	}
	if len(certs) > most {
		texts = append(texts, "…")
	}
	return texts
}

// note remembers that the source was read without an error, or why it was not.
func (s *poolSource) note(now time.Time, failing string) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.failing = failing; failing == "" {
		s.success = now
	}
}

// noteLoad reports that a source cannot be loaded again, or with nil that it can. After the
// end of the configuration, the files that it watches may be gone, and the next one reports
// those that it watches too.
func (s *poolSource) noteLoad(err error) {
	if s.config.Context.Err() != nil {
		return
	}
	s.config.Report(err)
	s.report(err)
}
