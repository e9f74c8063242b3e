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
	found := slices.Concat(d.lookAtSources(now), d.lookAtDocuments(now))
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

// lookAtDocuments looks at files, and at what fetches have brought. Clients choose
// when that changes, so it must not keep the server busy.
func (d *Directory) lookAtDocuments(now time.Time) (found changes) {
	look := func(document *watchedDocument) {
		parsed, changed, err := document.look(now)
		c := change{document: document, contents: parsed}
		if d.noteLook(c, changed, err, now) && !d.takeUnchanged(c, now) {
			found = append(found, c)
		}
	}
	for range min(len(d.documents.files), maxLooks) {
		d.documents.lastFile = (d.documents.lastFile + 1) % len(d.documents.files)
		look(d.documents.files[d.documents.lastFile])
	}
	if !time.Now().Before(d.rest) {
		for _, document := range d.documents.urls {
			look(document)
		}
	}
	return found
}

// noteLook notes the outcome of a look, and returns whether it has brought a change.
func (d *Directory) noteLook(c change, changed bool, err error, now time.Time) bool {
	if changed {
		d.pending.drop(c)
	}
	d.mu.Lock()
	s := c.status()
	var failing bool // which is to be reported
	if c.document != nil && c.document.url != nil {
		failing = err != nil && (s.reading == nil || s.reading.Error() != err.Error())
	} else {
		failing = s.health.Note(now, changed, err) && err != nil
	}
	if changed && err != nil {
		s.applying = nil
	}
	mended := false
	if failing || err == nil && !changed {
		mended = s.noteReading(now, err)
	}
	d.mu.Unlock()
	if failing || mended {
		d.config.report(c, err)
	}
	return changed && err == nil
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
	reported := sameWarnings(c.document.warnings, c.contents.warnings)
	c.document.contents = c.contents
	c.status().setInForce(now)
	d.mu.Unlock()
	if !reported {
		d.config.warnAll(c.document.warningTexts())
	}
	d.config.report(c, nil)
	return true
}
