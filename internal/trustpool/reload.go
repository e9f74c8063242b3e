package trustpool

import (
	"crypto/x509"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// poll keeps one source up to date. Each has a goroutine of its own.
func (p *Pool) poll(s *poolSource) {
	now := p.config.Now()
	switch {
	case s.watched():
		p.lookAtFiles(s, now)
	case !now.Before(s.due):
		p.loadAgain(s, now)
	}
}

// lookAtFiles puts the content of the source's files to use if they have changed.
func (p *Pool) lookAtFiles(s *poolSource, now time.Time) {
	changed, broken := false, false
	for _, file := range s.files {
		other, report, err := file.look(now)
		changed, broken = changed || other, broken || err != nil
		if err != nil {
			p.failed(s, err.Error())
		}
		if report {
			p.noteLoad(s, err)
		}
	}
	if changed || s.failure != "" && !now.Before(s.due) {
		next, err := p.readFiles(s)
		if err == nil {
			err = p.take(s, next)
		}
		s.due = now.Add(retryInterval)
		p.outcome(s, err)
	}
	switch {
	case s.failure != "":
		p.failed(s, s.failure)
	case !broken:
		p.succeeded(s, now)
	}
}

// loadAgain reloads a source that cannot be watched, unless the configuration has
// ended, and so have its modules.
func (p *Pool) loadAgain(s *poolSource, now time.Time) {
	ended := p.config.Context.Err
	if ended() != nil {
		return
	}
	next, err := p.load(s)
	if ended() != nil {
		if err == nil {
			next.cancel()
		}
		return
	}
	if err == nil {
		err = p.take(s, next)
	}
	p.outcome(s, err)
	if err != nil {
		p.failed(s, s.failure)
		s.due = now.Add(min(p.config.Refresh, retryInterval))
		return
	}
	s.due = now.Add(p.config.Refresh)
	p.succeeded(s, now)
}

// outcome logs a failure that differs from the last one, and the end of one.
func (p *Pool) outcome(s *poolSource, err error) {
	switch {
	case err != nil && err.Error() != s.failure:
		s.failure = err.Error()
		p.noteLoad(s, err)
	case err == nil && s.failure != "":
		s.failure = ""
		p.noteLoad(s, nil)
	}
}

// take replaces the certificates of a source. If the pool stays the same, its user
// is not told; if the user refuses the new pool, the previous one stays.
func (p *Pool) take(s *poolSource, next loaded) error {
	unused, err := p.swap(s, next)
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

func (p *Pool) succeeded(s *poolSource, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.success, s.failing = now, ""
}

func (p *Pool) failed(s *poolSource, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.failing = why
}

// noteLoad reports that a source cannot be loaded again, or with nil that it can.
func (p *Pool) noteLoad(s *poolSource, err error) {
	p.config.Report(err)
	p.report(s, err)
}

// report logs a failure of a source, or with nil its end.
func (p *Pool) report(s *poolSource, err error) {
	if err == nil {
		p.config.Logger.Info("reloading trust pool works again", zap.String("source", s.Provider))
		return
	}
	p.config.Logger.Error("reloading trust pool failed; keeping previous CAs",
		zap.String("source", s.Provider), zap.Error(err))
}
