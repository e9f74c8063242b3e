package clients

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// change is that an origin or a document has become another.
type change struct {
	origin  *origin
	records []Record

	document *document
	contents *contents
}

func (c change) of(other change) bool {
	return c.origin == other.origin && c.document == other.document
}

// plan is how everything would be after some changes.
type plan struct {
	registry  *Registry
	changes   []change
	entries   [][]entry // of every origin
	documents *documents
	warnings  []string
}

// apply puts changes in force, and with them what could not be before. What
// does not go together with the rest is left out, and waits. Whatever gets in
// force may be what another waits for.
func (d *Directory) apply(changes []change, now time.Time) {
	for _, c := range changes {
		d.pending = append(slices.DeleteFunc(d.pending, c.of), c)
	}
	for {
		waiting := len(d.pending)
		failed := d.try(slices.Clone(d.pending), now)
		if len(d.pending) > 0 && len(d.pending) < waiting {
			continue
		}
		for _, f := range failed {
			f.fails(d, f.err)
		}
		return
	}
}

// failedChange is a change that cannot be put in force.
type failedChange struct {
	change
	err error
}

// try puts changes in force, or, if they are no good together, one half of them
// after the other.
func (d *Directory) try(changes []change, now time.Time) []failedChange {
	p, err := d.use(changes)
	switch {
	case err == nil:
		d.commit(p, now)
		for _, c := range changes {
			d.pending = slices.DeleteFunc(d.pending, c.of)
			c.report(d, nil)
		}
		return nil
	case len(changes) > 1:
		half := len(changes) / 2
		failed := d.try(changes[:half], now)
		return append(failed, d.try(changes[half:], now)...)
	}
	return []failedChange{{changes[0], err}}
}

// use plans changes and has the registry used. What a JWKS holds is its owner's
// choice, and a panic here, outside of any request, would end the process.
func (d *Directory) use(changes []change) (p *plan, err error) {
	defer source.Recover("planning", &err)
	if p, err = d.plan(changes); err == nil {
		err = d.config.Use(p.registry)
	}
	return p, err
}

func (c change) status() *status {
	if c.origin != nil {
		return &c.origin.status
	}
	return &c.document.status
}

func (c change) report(d *Directory, err error) {
	if c.origin != nil {
		d.config.Report(c.origin.label(), c.origin.name, err)
		return
	}
	d.reportDocument(c.document, err)
}

// fails notes that a change cannot be put in force, and reports it once.
func (c change) fails(d *Directory, err error) {
	d.mu.Lock()
	s := c.status()
	reported := s.applying != nil && s.applying.Error() == err.Error()
	s.reading, s.applying = nil, err
	d.mu.Unlock()
	if !reported {
		c.report(d, err)
	}
}

// plan works out how everything would be. Nothing is changed by it.
func (d *Directory) plan(changes []change) (*plan, error) {
	now := d.config.Now()
	p := &plan{changes: changes, documents: newDocuments(d.open, now)}
	p.documents.at = d.openURL
	records := make(map[*origin][]Record)
	for _, c := range changes {
		if c.origin != nil {
			records[c.origin] = c.records
		} else {
			p.documents.changed[c.document] = c.contents
		}
	}
	var list []*Client
	for _, o := range d.origins {
		entries := o.entries
		var err error
		if replaced, ok := records[o]; ok {
			entries, err = d.make(p, replaced, now)
			if o.source != nil && len(replaced) == 0 {
				p.warnings = append(p.warnings, fmt.Sprintf("clients from %s: there are none; everyone who was there is refused", o.name))
			}
		} else if len(p.documents.changed) > 0 {
			entries, err = d.remake(p, entries, now)
		}
		if err != nil {
			return nil, o.wrap(err)
		}
		p.entries = append(p.entries, entries)
		for _, e := range entries {
			list = append(list, e.client)
		}
	}
	if err := d.checkTwice(p); err != nil {
		return nil, err
	}
	var err error
	p.registry, err = newRegistry(list)
	return p, err
}

// wrap tells that a source is to blame.
func (o *origin) wrap(err error) error {
	if o.source == nil {
		return err
	}
	return fmt.Errorf("clients from %s: %w", o.name, err)
}

// make makes the clients of an origin.
func (d *Directory) make(p *plan, records []Record, now time.Time) ([]entry, error) {
	entries := make([]entry, 0, len(records))
	for i := range records {
		e, warnings, err := d.entry(p, &records[i], now)
		if err != nil {
			return nil, err
		}
		p.warnings = append(p.warnings, warnings...)
		entries = append(entries, e)
	}
	return entries, nil
}

// remake makes those clients anew that name a document which has changed.
func (d *Directory) remake(p *plan, entries []entry, now time.Time) ([]entry, error) {
	var remade []entry
	for i, e := range entries {
		if !slices.ContainsFunc(e.documents, func(d *document) bool { return p.documents.changed[d] != nil }) {
			continue
		}
		if remade == nil {
			remade = slices.Clone(entries)
		}
		var err error
		if remade[i], _, err = d.entry(p, e.record, now); err != nil {
			return nil, err
		}
	}
	if remade == nil {
		return entries, nil
	}
	return remade, nil
}

func (d *Directory) entry(p *plan, record *Record, now time.Time) (entry, []string, error) {
	p.documents.used = nil
	client, warnings, err := newClient(*record, now, p.documents)
	if err != nil {
		return entry{}, nil, err
	}
	if err := d.config.Check(client); err != nil {
		return entry{}, nil, err
	}
	e := entry{client: client, documents: p.documents.used}
	if len(e.documents) > 0 {
		kept := *record
		e.record = &kept
	}
	return e, warnings, nil
}

// checkTwice tells who has a client that another has too, which the registry
// could not.
func (d *Directory) checkTwice(p *plan) error {
	if len(d.origins) == 1 {
		return nil
	}
	where := make(map[string]*origin)
	for i, o := range d.origins {
		for _, e := range p.entries[i] {
			other := where[e.client.ID]
			switch {
			case other == nil:
				where[e.client.ID] = o
			case other == o:
				return o.wrap(fmt.Errorf("client '%s' is there twice; keep one", e.client.ID))
			default:
				return fmt.Errorf("client '%s' is in %s and in %s; keep one", e.client.ID, other.name, o.name)
			}
		}
	}
	return nil
}

// openURL opens a JWK Set behind a URL, with what the directory before has of it.
func (d *Directory) openURL(key documentKey) (*document, error) {
	opened := &document{documentKey: key}
	var err error
	opened.url, err = source.NewURL(source.URLConfig{
		Address: key.place, MaxBytes: MaxJWKSBytes, Accept: opened.accept, Fetch: d.config.Fetch, Now: d.config.Now,
	})
	if err != nil {
		return nil, err
	}
	opened.name = opened.url.Name()
	if before := d.config.Before; before != nil {
		before.mu.Lock()
		old, saved := before.open[key], time.Time{}
		if old != nil {
			saved = old.saved
		}
		before.mu.Unlock()
		if old != nil && opened.takeOver(old) {
			opened.saved = saved
			opened.warnings = nil // they have been told
			return opened, nil
		}
	}
	if kept, ok := d.copies[key.place]; ok && d.config.Now().Sub(kept.Fetched).Abs() < copyLifetime && opened.beginWith(kept) {
		opened.saved = kept.Fetched
	}
	return opened, nil
}

// loadCopies reads the copies of those JWK Sets that the directory before does
// not have.
func (d *Directory) loadCopies(ctx context.Context, changes []change) {
	if d.config.Copies == nil {
		return
	}
	var addresses []string
	for _, c := range changes {
		for _, record := range c.records {
			if record.JWKSURI != "" && !d.config.Before.hasKeySetAt(record.JWKSURI) {
				addresses = append(addresses, record.JWKSURI)
			}
		}
	}
	if len(addresses) > 0 {
		d.copies = d.config.Copies.load(ctx, addresses)
	}
}

func (d *Directory) hasKeySetAt(address string) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	document := d.open[documentKey{KindJWKS, address, true}]
	return document != nil && document.certificates != nil
}

// commit puts a plan in force.
func (d *Directory) commit(p *plan, now time.Time) {
	d.mu.Lock()
	d.registry = p.registry
	for i, o := range d.origins {
		o.entries = p.entries[i]
	}
	warnings := p.warnings
	for _, c := range p.changes {
		c.status().inForce(now)
		if c.document != nil {
			c.document.contents, c.document.saved = *c.contents, time.Time{}
			warnings = append(warnings, c.document.tell()...)
		}
	}
	for _, document := range p.documents.opened {
		warnings = append(warnings, document.tell()...)
	}
	d.sweep()
	d.mu.Unlock()
	d.warn(warnings)
	d.reportConflicts()
}

func (d *Directory) warn(warnings []string) {
	for i, warning := range warnings {
		if i == maxTold {
			d.config.Warn(fmt.Sprintf("%d more warnings", len(warnings)-maxTold))
			break
		}
		d.config.Warn(warning)
	}
}

// sweep notes who uses which document, and forgets those that nobody does.
func (d *Directory) sweep() {
	for _, document := range d.open {
		document.users = nil
	}
	open := make(map[documentKey]*document)
	d.files, d.urls = nil, nil
	for _, o := range d.origins {
		for _, e := range o.entries {
			for _, document := range e.documents {
				if _, known := open[document.documentKey]; !known {
					open[document.documentKey] = document
					if document.url != nil {
						d.urls = append(d.urls, document)
					} else {
						d.files = append(d.files, document)
					}
				}
				document.users = append(document.users, e.client.ID)
			}
		}
	}
	d.open = open
	d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
		return c.document != nil && open[c.document.documentKey] != c.document
	})
}

// reportedConflict is a conflict that has been reported.
type reportedConflict struct{ thumbprint, clientID, holderID string }

// reportConflicts reports new conflicts and ambiguities once, and those
// ambiguities that have ended.
func (d *Directory) reportConflicts() {
	conflicts := make(map[reportedConflict]struct{})
	for _, c := range d.registry.Conflicts() {
		this := reportedConflict{c.Thumbprint, c.Client.ID, c.Holder.Client.ID}
		conflicts[this] = struct{}{}
		if _, reported := d.conflicts[this]; !reported {
			d.config.Ignored(c)
		}
	}
	ambiguities := make(map[string]Ambiguity)
	for _, a := range d.registry.Ambiguities() {
		ambiguities[a.Thumbprint] = a
		if !slices.Equal(d.ambiguities[a.Thumbprint].ClientIDs, a.ClientIDs) {
			d.config.Ambiguous(a)
		}
	}
	for thumbprint, a := range d.ambiguities {
		if _, still := ambiguities[thumbprint]; !still {
			d.config.Unambiguous(a)
		}
	}
	d.conflicts, d.ambiguities = conflicts, ambiguities
}
