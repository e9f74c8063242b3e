package clients

import (
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// change is that an origin or a document has become another, or that a copy of a
// JWKS in storage knows something better.
type change struct {
	origin  *origin
	records []Record

	document *document
	contents *contents

	correction *correction
}

func (c change) of(other change) bool {
	if c.correction != nil && other.correction != nil {
		return c.correction.ClientID == other.correction.ClientID
	}
	return c.origin == other.origin && c.document == other.document && c.correction == other.correction
}

// plan is how everything would be after some changes.
type plan struct {
	registry  *Registry
	changes   []change
	entries   [][]entry // of every origin
	documents *documents
	warnings  []string
	relisted  []*Client // those with another JWKS
	// stamp is since when what is new in a JWKS is listed
	stamp time.Time
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
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("working it out panics: %s", source.Text(fmt.Sprint(fault), maxJWKSText))
		}
	}()
	if p, err = d.plan(changes); err == nil {
		err = d.config.Use(p.registry)
	}
	return p, err
}

func (c change) status() *status {
	switch {
	case c.origin != nil:
		return &c.origin.status
	case c.document != nil:
		return &c.document.status
	}
	return &c.correction.status
}

func (c change) report(d *Directory, err error) {
	switch {
	case c.origin != nil:
		d.config.Report(c.origin.label(), c.origin.name, err)
	case c.document != nil:
		d.reportDocument(c.document, err)
	case err != nil:
		d.config.Report("jwks:"+c.correction.ClientID, "storage", err)
	}
}

// fails notes that a change cannot be put in force, and reports it once.
func (c change) fails(d *Directory, err error) {
	s, text := c.status(), err.Error()
	d.mu.Lock()
	told := s.broken == text
	s.failure, s.broken = text, text
	d.mu.Unlock()
	if !told {
		c.report(d, err)
	}
}

// plan works out how everything would be. Nothing is changed by it.
func (d *Directory) plan(changes []change) (*plan, error) {
	now := d.config.Now()
	p := &plan{changes: changes, documents: newDocuments(d.open, now), stamp: d.copies.stamp(now)}
	p.documents.at = d.openURL
	records := make(map[*origin][]Record)
	corrections := make(map[string]*correction)
	for _, c := range changes {
		switch {
		case c.origin != nil:
			records[c.origin] = c.records
		case c.document != nil:
			p.documents.changed[c.document] = c.contents
		default:
			corrections[c.correction.ClientID] = c.correction
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
		entries = p.correct(entries, corrections)
		p.entries = append(p.entries, entries)
		for _, e := range entries {
			list = append(list, e.client)
		}
	}
	if err := d.checkTwice(p); err != nil {
		return nil, err
	}
	var err error
	p.registry, err = NewRegistry(list)
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
	if record.hasJWKS() {
		before := d.listedBefore(client.ID)
		if client.listed = dated(client.listed, before, p.stamp); !sameListings(client.listed, before) {
			p.relisted = append(p.relisted, client)
		}
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
		old, noted := before.open[key], time.Time{}
		if old != nil {
			noted = old.noted
		}
		before.mu.Unlock()
		if old != nil && opened.takeOver(old) {
			opened.noted = noted
			opened.warnings = nil // they have been told
			return opened, nil
		}
	}
	d.begin(opened, d.config.Now())
	return opened, nil
}

// commit puts a plan in force.
func (d *Directory) commit(p *plan, now time.Time) {
	d.mu.Lock()
	before := d.registry
	d.registry = p.registry
	for i, o := range d.origins {
		o.entries = p.entries[i]
	}
	warnings := p.warnings
	for _, c := range p.changes {
		*c.status() = status{success: now}
		if c.document != nil {
			c.document.contents = *c.contents
			warnings = append(warnings, c.document.tell()...)
		}
	}
	for _, document := range p.documents.opened {
		warnings = append(warnings, document.tell()...)
	}
	d.sweep()
	d.noteCopies(p, before, now)
	d.mu.Unlock()
	d.warn(warnings)
	d.tellConflicts()
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
		return c.document != nil && open[c.document.documentKey] != c.document ||
			c.correction != nil && d.registry.Client(c.correction.ClientID) == nil
	})
}

// toldConflict is a conflict that has been told of.
type toldConflict struct{ thumbprint, clientID, holderID string }

// tellConflicts tells of those that have not been told of.
func (d *Directory) tellConflicts() {
	told := make(map[toldConflict]struct{})
	for _, c := range d.registry.Conflicts() {
		this := toldConflict{c.Thumbprint, c.Client.ID, c.Holder.Client.ID}
		told[this] = struct{}{}
		if _, known := d.told[this]; !known {
			d.config.Ignored(c)
		}
	}
	d.told = told
}
