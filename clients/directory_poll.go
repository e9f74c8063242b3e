package clients

import (
	"context"
	"slices"
	"time"
)

// Poll looks at the files, fetches the JWKS that are due, in the background,
// and puts in force what has changed. It costs one system call for each file
// that has not, of at most a thousand, in turn.
func (d *Directory) Poll(ctx context.Context) {
	d.polling.Lock()
	defer d.polling.Unlock()
	now := d.config.Now()
	changes := d.look(now)
	d.fetch(ctx, now)
	if len(changes) == 0 && (len(d.pending) == 0 || now.Sub(d.tried).Abs() < retryPause || time.Now().Before(d.rest)) {
		return
	}
	d.tried = now
	// this is about work, which the configured clock does not measure
	began := time.Now()
	d.apply(changes, now)
	d.rest = time.Now().Add(restFactor * time.Since(began))
}

// look returns what has changed.
func (d *Directory) look(now time.Time) []change {
	var changes []change
	for _, o := range d.origins {
		if o.source == nil {
			continue
		}
		records, changed, err := o.source.Load(now)
		if c := (change{origin: o, records: records}); d.looked(c, changed, err, now) {
			changes = append(changes, c)
		}
	}
	for range min(len(d.files), maxLooks) {
		d.lastFile = (d.lastFile + 1) % len(d.files)
		document := d.files[d.lastFile]
		contents, changed, err := document.look(now)
		c := change{document: document, contents: contents}
		if d.looked(c, changed, err, now) && !d.unchanged(c, now) {
			changes = append(changes, c)
		}
	}
	if time.Now().Before(d.rest) {
		return changes // clients choose when these change
	}
	for _, document := range d.urls {
		fetched, ended, err := document.takeFetched()
		c := change{document: document, contents: fetched}
		if ended && err == nil {
			d.noteFetch(c)
		}
		if fetched != nil && !d.unchanged(c, now) {
			changes = append(changes, c)
		}
		if ended && (fetched == nil || err != nil) {
			d.fetched(document, now, err)
		}
	}
	return changes
}

// noteFetch notes when contents were fetched, those that are new or those that
// count already.
func (d *Directory) noteFetch(c change) {
	at := c.document.url.State().Success
	switch {
	case c.contents != nil:
		c.contents.at = at
	case !slices.ContainsFunc(d.pending, c.of):
		d.mu.Lock()
		c.document.at = at
		d.mu.Unlock()
	}
}

// looked notes what a look at a file has brought, and reports whether it is a
// change.
func (d *Directory) looked(c change, changed bool, err error, now time.Time) bool {
	if changed {
		d.pending = slices.DeleteFunc(d.pending, c.of) // that is no longer wanted
	}
	d.mu.Lock()
	s := c.status()
	report := s.health.Note(now, changed, err) && err != nil
	if changed && err != nil {
		s.applying = nil
	}
	if report || err == nil && !changed {
		report = s.note(now, err) || report
	}
	d.mu.Unlock()
	if report {
		c.report(d, err)
	}
	return changed && err == nil
}

// unchanged takes over contents whose certificates are those that count. That
// needs no other registry, with which the server would forget what it has
// verified: who serves a JWKS could have it do so all the time.
func (d *Directory) unchanged(c change, now time.Time) bool {
	if !sameCertificates(c.document.certificates, c.contents.certificates) {
		return false
	}
	d.pending = slices.DeleteFunc(d.pending, c.of)
	d.mu.Lock()
	told := slices.Equal(c.document.warnings, c.contents.warnings)
	c.document.warnings, c.document.at = c.contents.warnings, c.contents.at
	c.status().inForce(now)
	d.mu.Unlock()
	if !told {
		d.warn(c.document.tell())
	}
	c.report(d, nil)
	return true
}

// fetched notes how a fetch went that has brought nothing new. It reports an
// error that differs from the last, and the end of one.
func (d *Directory) fetched(document *document, now time.Time, err error) {
	d.mu.Lock()
	before := document.failure()
	report := document.note(now, err) || err != nil && err.Error() != before
	d.mu.Unlock()
	if report {
		d.reportDocument(document, err)
	}
}

func (d *Directory) reportDocument(document *document, err error) {
	label := string(document.kind)
	if labels := document.labels(); len(labels) > 0 {
		label = labels[0]
	}
	d.config.Report(label, document.name, err)
}

// fetch fetches what is due, as far as fetches are free.
func (d *Directory) fetch(ctx context.Context, now time.Time) {
	for range d.urls {
		d.lastURL = (d.lastURL + 1) % len(d.urls)
		document := d.urls[d.lastURL]
		if now.Before(document.url.Due()) {
			continue
		}
		select {
		case d.fetches <- struct{}{}:
		default:
			d.lastURL += len(d.urls) - 1 // it is the first, next time
			return
		}
		go func() {
			_, _, err := document.url.Refresh(ctx)
			document.mu.Lock()
			document.ended, document.failed = true, err
			document.mu.Unlock()
			<-d.fetches
		}()
	}
}
