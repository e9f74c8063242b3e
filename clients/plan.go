package clients

import (
	"fmt"
	"slices"
	"time"
)

// plan is what would be in force after some changes. Making one changes nothing.
type plan struct {
	now       time.Time
	check     func(*Client) error
	changes   changes
	documents *plannedDocuments
	entries   [][]entry // for each source
	registry  *Registry
	warnings  []string
}

func newPlan(d *Directory, found changes) (*plan, error) {
	now := d.config.Now()
	p := &plan{now: now, check: d.config.Check, changes: found, documents: newPlannedDocuments(d.documents.byKey, &d.opener, now)}
	changed := make(map[*recordSource][]Record)
	for _, c := range found {
		if c.source != nil {
			changed[c.source] = c.records
		} else {
			p.documents.changed[c.document] = c.contents
		}
	}
	var list []*Client
	for _, s := range d.sources {
		entries := s.entries
		var err error
		if records, ok := changed[s]; ok {
			entries, err = p.makeEntries(records)
			if s.source != nil && len(records) == 0 {
				p.warnings = append(p.warnings, fmt.Sprintf("clients from %s: source has no clients", s.name))
			}
		} else if len(p.documents.changed) > 0 {
			entries, err = p.remakeEntries(entries)
		}
		if err != nil {
			return nil, s.wrap(err)
		}
		p.entries = append(p.entries, entries)
		for _, e := range entries {
			list = append(list, e.client)
		}
	}
	if err := p.checkUniqueIDs(d.sources); err != nil {
		return nil, err
	}
	var err error
	p.registry, err = newRegistry(list)
	return p, err
}

// makeEntries makes the clients of a source.
func (p *plan) makeEntries(records []Record) ([]entry, error) {
	entries := make([]entry, 0, len(records))
	for i := range records {
		e, warnings, err := p.makeEntry(&records[i])
		if err != nil {
			return nil, err
		}
		p.warnings = append(p.warnings, warnings...)
		entries = append(entries, e)
	}
	return entries, nil
}

// remakeEntries makes those clients again that name a document with new content.
func (p *plan) remakeEntries(entries []entry) ([]entry, error) {
	cloned := false
	for i, e := range entries {
		if !slices.ContainsFunc(e.documents, func(d *watchedDocument) bool { return p.documents.changed[d] != nil }) {
			continue
		}
		if !cloned {
			entries, cloned = slices.Clone(entries), true
		}
		var err error
		if entries[i], _, err = p.makeEntry(e.record); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func (p *plan) makeEntry(record *Record) (entry, []string, error) {
	p.documents.used = nil
	client, warnings, err := newClient(*record, p.now, p.documents)
	if err == nil {
		err = p.check(client)
	}
	if err != nil {
		return entry{}, nil, err
	}
	e := entry{client: client, documents: p.documents.used}
	if len(e.documents) > 0 {
		kept := *record
		e.record = &kept
	}
	return e, warnings, nil
}

// checkUniqueIDs returns an error that names the sources of a client that is there
// twice. The registry would find it, but does not know its sources.
func (p *plan) checkUniqueIDs(sources []*recordSource) error {
	if len(sources) == 1 {
		return nil
	}
	where := make(map[string]*recordSource)
	for i, s := range sources {
		for _, e := range p.entries[i] {
			other := where[e.client.ID]
			switch {
			case other == nil:
				where[e.client.ID] = s
			case other == s:
				return s.wrap(fmt.Errorf("client '%s' appears twice; keep one", e.client.ID))
			default:
				return fmt.Errorf("client '%s' is in %s and in %s; keep one", e.client.ID, other.name, s.name)
			}
		}
	}
	return nil
}
