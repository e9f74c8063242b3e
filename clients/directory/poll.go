package directory

import (
	"context"
	"slices"
	"sync"
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

// poller puts changes of documents in force.
type poller struct {
	documents *documents
	// remake makes those clients again that name changed documents
	remake func(documentChanges) error

	mu        sync.Mutex // guards what follows, and is taken before changing of the directory
	pending   documentChanges
	tried     time.Time // when the pending changes were last tried, and with what
	triedWith *clients.Registry
	rest      time.Time // until then, changes of JWK Sets behind URLs wait
}

// Poll looks at the files that clients name, fetches JWK Sets that are due in the
// background, and puts changes in force. It costs one system call for each unchanged
// file, of which it looks at a thousand at most, in turn.
func (d *Directory) Poll(ctx context.Context) {
	p := &d.poller
	p.mu.Lock()
	defer p.mu.Unlock()
	now := d.config.Now()
	found := p.look(now)
	d.documents.startFetches(ctx, now)
	if len(found) == 0 && !p.retries(now, d.Registry()) {
		return
	}
	// this is about work, which the configured clock does not measure
	began := time.Now()
	d.changing.Lock()
	p.apply(found, now)
	d.changing.Unlock()
	p.tried, p.triedWith, p.rest = now, d.Registry(), time.Now().Add(restFactor*time.Since(began))
}

// look looks at files, and at what fetches have brought. Clients choose when that changes,
// so it must not keep the server busy.
func (p *poller) look(now time.Time) (found documentChanges) {
	for _, document := range p.documents.due(p.rests()) {
		parsed, changed, err := document.look(now)
		c := documentChange{document: document, contents: parsed}
		if changed {
			p.pending.drop(c)
		}
		p.documents.noteLook(document, changed, err, now)
		if changed && err == nil {
			found = append(found, c)
		}
	}
	return found
}

// rests reports whether changes of JWK Sets behind URLs wait.
func (p *poller) rests() bool { return time.Now().Before(p.rest) }

// retries reports whether pending changes are to be tried again.
func (p *poller) retries(now time.Time, registry *clients.Registry) bool {
	return len(p.pending) > 0 && !p.rests() && (now.Sub(p.tried).Abs() >= retryPause || registry != p.triedWith)
}

// apply puts changes in force, together with pending ones. Those that do not go
// together with the rest stay pending. A change that gets in force may be what
// another one waits for. The caller holds changing.
func (p *poller) apply(list documentChanges, now time.Time) {
	for _, c := range list {
		p.pending.drop(c)
		if p.documents.takeUnchanged(c, now) {
			continue
		}
		p.pending = append(p.pending, c)
	}
	p.pending = slices.DeleteFunc(p.pending, func(c documentChange) bool {
		return p.documents.byKey[c.document.documentKey] != c.document
	})
	for {
		waiting := len(p.pending)
		failed := p.try(slices.Clone(p.pending))
		if len(p.pending) > 0 && len(p.pending) < waiting {
			continue
		}
		for _, f := range failed {
			p.documents.noteFailedChange(f)
		}
		return
	}
}

// try puts changes in force. If they do not go together, it tries one half after
// the other.
func (p *poller) try(list documentChanges) documentChanges {
	if len(list) == 0 {
		return nil
	}
	err := p.remake(list)
	switch {
	case err == nil:
		for _, c := range list {
			p.pending.drop(c)
			p.documents.config.report(c.document.label(), c.document.name, nil)
		}
		return nil
	case len(list) > 1:
		half := len(list) / 2
		failed := p.try(list[:half])
		return append(failed, p.try(list[half:])...)
	}
	failed := list[0]
	failed.failure = err
	return documentChanges{failed}
}

// remake makes those clients again that name documents with new contents.
// Owners of JWK Sets choose what is in them, and a panic here would end the process.
func (d *Directory) remake(list documentChanges) (err error) {
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
	slices.SortFunc(sorted, byRank)
	t := p.begin()
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
		if w := t.waits[again]; err == nil && w != nil && d.waiting.list().of(client) == nil {
			err = w.err // what the document had before stays in force
		}
		if err != nil {
			return s.wrap(err)
		}
	}
	p.warnings = warningList{} // they were reported when the records came
	return d.commit(t)
}
