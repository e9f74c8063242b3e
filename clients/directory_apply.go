package clients

import (
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// change is that a source or a document has new content.
type change struct {
	source  *recordSource
	records []Record

	document *watchedDocument
	contents *contents

	failure error // why it cannot be put in force
}

// changes are changes of different sources and documents.
type changes []change

// drop drops the change of the same source or document as another.
func (cs *changes) drop(other change) {
	*cs = slices.DeleteFunc(*cs, func(c change) bool { return c.source == other.source && c.document == other.document })
}

func (c change) status() *status {
	if c.source != nil {
		return &c.source.status
	}
	return &c.document.status
}

// apply puts changes in force, together with pending ones. Those that do not go
// together with the rest stay pending. A change that gets in force may be what
// another one waits for.
func (d *Directory) apply(list changes, now time.Time) {
	for _, c := range list {
		d.pending.drop(c)
		d.pending = append(d.pending, c)
	}
	for {
		waiting := len(d.pending)
		failed := d.try(slices.Clone(d.pending), now)
		if len(d.pending) > 0 && len(d.pending) < waiting {
			continue
		}
		for _, f := range failed {
			d.noteFailedChange(f)
		}
		return
	}
}

// try puts changes in force. If they do not go together, it tries one half after
// the other.
func (d *Directory) try(list changes, now time.Time) changes {
	p, err := d.use(list)
	switch {
	case err == nil:
		d.commit(p, now)
		for _, c := range list {
			d.pending.drop(c)
			d.config.report(c, nil)
		}
		return nil
	case len(list) > 1:
		half := len(list) / 2
		failed := d.try(list[:half], now)
		return append(failed, d.try(list[half:], now)...)
	}
	failed := list[0]
	failed.failure = err
	return changes{failed}
}

// use plans changes and has the registry used. Owners of JWK Sets choose what is
// in them, and a panic here would end the process.
func (d *Directory) use(list changes) (p *plan, err error) {
	defer source.Recover("planning", &err)
	if p, err = newPlan(d, list); err == nil {
		err = d.config.Use(p.registry)
	}
	return p, err
}

// commit puts a plan in force.
func (d *Directory) commit(p *plan, now time.Time) {
	d.mu.Lock()
	d.registry = p.registry
	for i, s := range d.sources {
		s.entries = p.entries[i]
	}
	d.documents.keepUsed(d.sources)
	warnings := warningTexts(p.warnings)
	for _, c := range p.changes {
		c.status().setInForce(now)
		if c.document != nil {
			c.document.contents, c.document.saved = c.contents, time.Time{}
			warnings = append(warnings, c.document.warningTexts()...)
		}
	}
	for _, opened := range p.opened {
		warnings = append(warnings, opened.warningTexts()...)
	}
	d.mu.Unlock()
	d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
		return c.document != nil && d.documents.byKey[c.document.documentKey] != c.document
	})
	d.config.warnAll(warnings)
	d.reported.update(d.config.Logger, p.registry)
}

// noteFailedChange notes that a change cannot be put in force, and reports it once.
func (d *Directory) noteFailedChange(f change) {
	d.mu.Lock()
	s := f.status()
	reported := s.applying != nil && s.applying.Error() == f.failure.Error()
	s.reading, s.applying = nil, f.failure
	d.mu.Unlock()
	if !reported {
		d.config.report(f, f.failure)
	}
}
