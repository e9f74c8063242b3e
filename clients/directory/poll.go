package directory

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// restFactor times as long as a change has taken, changes of JWK Sets behind
	// URLs wait after it.
	restFactor = 10
	// retryPause is the pause after which pending changes are tried again though
	// nothing has changed.
	retryPause = 5 * time.Second
)

// documentChange is that a document has new content.
type documentChange struct {
	document *watchedDocument
	contents *contents
	failure  error // why it cannot be put in force
}

// documentChanges are changes of different documents.
type documentChanges []documentChange

// drop drops the change of the same document as another.
func (cs *documentChanges) drop(other documentChange) {
	*cs = slices.DeleteFunc(*cs, func(c documentChange) bool { return c.document == other.document })
}

// Poll looks at the files that clients name, fetches JWK Sets that are due in the
// background, and puts changes in force. It costs one system call for each unchanged
// file, of which it looks at a thousand at most, in turn.
func (d *Directory) Poll(ctx context.Context) {
	d.polling.Lock()
	defer d.polling.Unlock()
	now := d.config.Now()
	found := d.lookAtDocuments(now)
	d.startFetches(ctx, now)
	retry := len(d.pending) > 0 && !time.Now().Before(d.rest) && (now.Sub(d.tried).Abs() >= retryPause || d.Registry() != d.triedWith)
	if len(found) == 0 && !retry {
		return
	}
	// this is about work, which the configured clock does not measure
	began := time.Now()
	d.changing.Lock()
	d.apply(found, now)
	d.changing.Unlock()
	d.tried, d.triedWith, d.rest = now, d.Registry(), time.Now().Add(restFactor*time.Since(began))
}

// lookAtDocuments looks at files, and at what fetches have brought. Clients choose
// when that changes, so it must not keep the server busy.
func (d *Directory) lookAtDocuments(now time.Time) (found documentChanges) {
	d.mu.Lock()
	list := d.documents.files.next(maxLooks)
	if !time.Now().Before(d.rest) {
		list = append(list, d.documents.urls.all...)
	}
	d.mu.Unlock()
	for _, document := range list {
		parsed, changed, err := document.look(now)
		c := documentChange{document: document, contents: parsed}
		if d.noteLook(c, changed, err, now) {
			found = append(found, c)
		}
	}
	return found
}

// startFetches fetches what is due in the background, a few at a time.
func (d *Directory) startFetches(ctx context.Context, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	urls := &d.documents.urls
	for range urls.all {
		before := urls.last
		document := urls.next(1)[0]
		if now.Before(document.url.Due()) {
			continue
		}
		select {
		case d.documents.fetches <- struct{}{}:
		default:
			urls.last = before // it is the first, next time
			return
		}
		go func() {
			document.fetch(ctx)
			<-d.documents.fetches
		}()
	}
}

// noteLook notes the outcome of a look, and returns whether it has brought a change.
func (d *Directory) noteLook(c documentChange, changed bool, err error, now time.Time) bool {
	if changed {
		d.pending.drop(c)
	}
	d.mu.Lock()
	s := &c.document.status
	var failing bool // which is to be reported
	if c.document.url != nil {
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
	label := c.document.label()
	d.mu.Unlock()
	if failing || mended {
		d.config.report(label, c.document.name, err)
	}
	return changed && err == nil
}

// apply puts changes in force, together with pending ones. Those that do not go
// together with the rest stay pending. A change that gets in force may be what
// another one waits for. The caller holds changing.
func (d *Directory) apply(list documentChanges, now time.Time) {
	for _, c := range list {
		if d.takeUnchanged(c, now) {
			continue
		}
		d.pending.drop(c)
		d.pending = append(d.pending, c)
	}
	d.pending = slices.DeleteFunc(d.pending, func(c documentChange) bool {
		return d.documents.byKey[c.document.documentKey] != c.document
	})
	for {
		waiting := len(d.pending)
		failed := d.try(slices.Clone(d.pending))
		if len(d.pending) > 0 && len(d.pending) < waiting {
			continue
		}
		for _, f := range failed {
			d.noteFailedChange(f)
		}
		return
	}
}

// takeUnchanged takes over contents with the certificates that are in force. That
// needs no new clients, whose certificates the server would have to look up again; the
// owner of a JWK Set could cause that all the time.
func (d *Directory) takeUnchanged(c documentChange, now time.Time) bool {
	if !sameCertificates(c.document.certificates, c.contents.certificates) {
		return false
	}
	d.pending.drop(c)
	d.mu.Lock()
	reported := sameWarnings(c.document.warnings, c.contents.warnings)
	c.document.contents = c.contents
	c.document.setInForce(now)
	warnings, label := c.document.warningTexts(), c.document.label()
	d.mu.Unlock()
	if !reported {
		d.config.warnAll(warnings)
	}
	d.config.report(label, c.document.name, nil)
	return true
}

// try puts changes in force. If they do not go together, it tries one half after
// the other.
func (d *Directory) try(list documentChanges) documentChanges {
	if len(list) == 0 {
		return nil
	}
	err := d.changeDocuments(list)
	switch {
	case err == nil:
		for _, c := range list {
			d.pending.drop(c)
			d.config.report(c.document.label(), c.document.name, nil)
		}
		return nil
	case len(list) > 1:
		half := len(list) / 2
		failed := d.try(list[:half])
		return append(failed, d.try(list[half:])...)
	}
	failed := list[0]
	failed.failure = err
	return documentChanges{failed}
}

// changeDocuments makes those clients again that name documents with new contents.
// Owners of JWK Sets choose what is in them, and a panic here would end the process.
func (d *Directory) changeDocuments(list documentChanges) (err error) {
	defer source.Recover("planning", &err)
	p := d.newPlan()
	p.locked, p.changed = true, make(map[*watchedDocument]*contents)
	users := make(map[*clients.Client]struct{})
	for _, c := range list {
		p.changed[c.document] = c.contents
		for user := range c.document.users {
			users[user] = struct{}{}
		}
	}
	sorted := make([]*clients.Client, 0, len(users))
	for user := range users {
		sorted = append(sorted, user)
	}
	slices.SortFunc(sorted, func(a, b *clients.Client) int {
		return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), cmp.Compare(a.ID, b.ID))
	})
	t := d.begin(p)
	t.documents = list
	for _, client := range sorted {
		t.remove(client)
	}
	for _, client := range sorted {
		s := d.sources[client.Rank()]
		again, err := p.make(s, []byte(client.Record()))
		if err == nil {
			err = t.add(again, "")
		}
		if w := t.waits[again]; err == nil && w != nil && d.waiting.Load().of(client) == nil {
			err = w.err // what the document had before stays in force
		}
		if err != nil {
			return s.wrap(err)
		}
	}
	p.warnings = warningList{} // they were reported when the records came
	return d.commit(t)
}

// noteFailedChange notes that a change cannot be put in force, and reports it once.
func (d *Directory) noteFailedChange(f documentChange) {
	d.mu.Lock()
	s := &f.document.status
	reported := s.applying != nil && s.applying.Error() == f.failure.Error()
	s.reading, s.applying = nil, f.failure
	label := f.document.label()
	d.mu.Unlock()
	if !reported {
		d.config.report(label, f.document.name, f.failure)
	}
}
