package clients

import (
	"context"
	"slices"
	"time"
)

const (
	// restFactor times as long as a change has taken, changes of JWK Sets behind
	// URLs wait after it.
	restFactor = 10
	// retryPause is the pause after which pending changes are tried again though
	// nothing has changed: a file that they name may have appeared.
	retryPause = 5 * time.Second
)

// Poll looks at sources and files, fetches JWK Sets that are due in the
// background, and puts changes in force. It costs one system call for each
// unchanged file, of which it looks at a thousand at most, in turn.
func (d *Directory) Poll(ctx context.Context) {
	d.polling.Lock()
	defer d.polling.Unlock()
	now := d.config.Now()
	found := slices.Concat(d.lookAtSources(now), d.lookAtFiles(now), d.takeFetched(now))
	d.documents.startFetches(ctx, now)
	if len(found) == 0 && (len(d.pending) == 0 || now.Sub(d.tried).Abs() < retryPause || time.Now().Before(d.rest)) {
		return
	}
	d.tried = now
	// this is about work, which the configured clock does not measure
	began := time.Now()
	d.apply(found, now)
	d.rest = time.Now().Add(restFactor * time.Since(began))
}

func (d *Directory) lookAtSources(now time.Time) (found changes) {
	for _, s := range d.sources {
		if s.source == nil {
			continue
		}
		records, changed, err := s.load(now)
		if c := (change{source: s, records: records}); d.noteLook(c, changed, err, now) {
			found = append(found, c)
		}
	}
	return found
}

func (d *Directory) lookAtFiles(now time.Time) (found changes) {
	for document := range d.documents.nextFiles() {
		parsed, changed, err := document.file.look(now)
		c := change{document: document, contents: parsed}
		if d.noteLook(c, changed, err, now) && !d.takeUnchanged(c, now) {
			found = append(found, c)
		}
	}
	return found
}

// noteLook notes the outcome of a look at a source or file, and returns whether it
// has brought a change.
func (d *Directory) noteLook(c change, changed bool, err error, now time.Time) bool {
	if changed {
		d.pending.drop(c)
	}
	d.mu.Lock()
	s := c.status()
	report := s.health.Note(now, changed, err) && err != nil
	if changed && err != nil {
		s.applying = nil
	}
	if report || err == nil && !changed {
		report = s.noteReading(now, err) || report
	}
	d.mu.Unlock()
	if report {
		d.config.report(c, err)
	}
	return changed && err == nil
}

// takeFetched returns the changes that fetches have brought. The clients choose
// when these are, so they must not keep the server busy.
func (d *Directory) takeFetched(now time.Time) (found changes) {
	if time.Now().Before(d.rest) {
		return nil
	}
	for _, document := range d.documents.urls {
		fetched, ended, err := document.takeFetched()
		c := change{document: document, contents: fetched}
		if ended && err == nil {
			d.noteSuccess(c)
		}
		if fetched != nil && !d.takeUnchanged(c, now) {
			found = append(found, c)
		}
		if ended && (fetched == nil || err != nil) {
			d.noteFetch(c, err, now)
		}
	}
	return found
}

// noteSuccess notes when the content was fetched that is new, or that is in force.
func (d *Directory) noteSuccess(c change) {
	at := c.document.url.Success()
	switch {
	case c.contents != nil:
		c.contents.at = at
	case !slices.ContainsFunc(d.pending, c.sameTarget):
		d.mu.Lock()
		c.document.at = at
		d.mu.Unlock()
	}
}

// noteFetch notes the outcome of a fetch that has brought nothing new. It reports
// an error that differs from the last one, and the end of a failure.
func (d *Directory) noteFetch(c change, err error, now time.Time) {
	d.mu.Lock()
	before := c.document.failure()
	report := c.document.noteReading(now, err) || err != nil && err.Error() != before
	d.mu.Unlock()
	if report {
		d.config.report(c, err)
	}
}

// takeUnchanged takes over contents with the certificates that are in force. That
// needs no new registry, which would make the server forget its verdicts; the
// owner of a JWK Set could cause that all the time.
func (d *Directory) takeUnchanged(c change, now time.Time) bool {
	if !sameCertificates(c.document.certificates, c.contents.certificates) {
		return false
	}
	d.pending.drop(c)
	d.mu.Lock()
	reported := slices.Equal(c.document.warnings, c.contents.warnings)
	c.document.warnings, c.document.at = c.contents.warnings, c.contents.at
	c.status().setInForce(now)
	d.mu.Unlock()
	if !reported {
		d.config.warnAll(c.document.warningTexts())
	}
	d.config.report(c, nil)
	return true
}
