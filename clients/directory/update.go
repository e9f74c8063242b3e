package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// checkEvery is after how many records an update looks whether it must end.
const checkEvery = 1024

// update is what a source hands over at once. It reads the records without a lock, and
// then puts them in force, all or none of them.
type update struct {
	directory *Directory
	source    *recordSource
	plan      *plan
	progress  *progress
	// replace is set if these are all records of the source
	replace bool
	read    int
	records []incoming
	removed []string // client_ids
	bad     []*clients.RecordError
	// outdated are the clients that go, or are made again, and kept those that stay
	outdated []*clients.Client
	kept     map[*clients.Client]struct{}
	places   map[*clients.Client]string // see placeOf
}

// incoming is a record that an update has read. If it has no client, the client is to
// be made of the text, or there is no text because the record is wrong.
type incoming struct {
	client *clients.Client
	place  string
	text   []byte
	known  bool // the client was in force or waiting before, and stays
}

func (s *recordSource) newUpdate(replace bool) *update {
	return &update{
		directory: s.directory, source: s, replace: replace, progress: newProgress(s.logger()),
		plan: s.directory.newPlan(),
	}
}

// run reads records and puts them in force, and notes the outcome.
func (u *update) run(ctx context.Context, records iter.Seq2[clients.Entry, error]) error {
	changed, err := u.try(ctx, records)
	u.note(changed, err)
	return err
}

// try is run without notes. What it calls may be a guest module.
func (u *update) try(ctx context.Context, records iter.Seq2[clients.Entry, error]) (changed bool, err error) {
	defer source.Recover(u.source.name, &err)
	if err := u.readAll(ctx, records); err != nil {
		return false, err
	}
	return u.apply(ctx)
}

// readAll reads records until one ends the update.
func (u *update) readAll(ctx context.Context, records iter.Seq2[clients.Entry, error]) error {
	for e, err := range records {
		if err != nil {
			return inPlace(e.Place, err)
		}
		if err := u.check(ctx, u.read); err != nil {
			return err
		}
		u.read++
		record, err := u.take(e)
		if err != nil {
			return err
		}
		if record.client != nil || record.text != nil {
			u.records = append(u.records, record)
		}
	}
	if u.replace && u.read > 0 && len(u.bad) == u.read {
		return fmt.Errorf("all %d records are wrong; the first: %w", u.read, u.bad[0])
	}
	return context.Cause(ctx)
}

// maxPlaceText bounds the place of an error, in bytes.
const maxPlaceText = 1200

// inPlace adds where it was found to an error.
func inPlace(place string, err error) error {
	if place == "" {
		return err
	}
	return fmt.Errorf("%s: %w", source.Text(place, maxPlaceText), err)
}

// check returns why the update must end, and reports its progress. It looks from time
// to time.
func (u *update) check(ctx context.Context, done int) error {
	if done%checkEvery != 0 {
		return nil
	}
	u.progress.report(done)
	if done > 0 { // clients can be disabled without memory
		if err := checkMemory(); err != nil {
			return fmt.Errorf("after %d records: %w", done, err)
		}
	}
	return context.Cause(ctx)
}

// take takes a record. Its error ends the update.
func (u *update) take(e clients.Entry) (incoming, error) {
	id := e.ID
	if id == "" {
		id = clients.GuessID(e.Record)
	}
	switch {
	case e.Wrong != nil:
		return u.skip(e.Place, id, e.Wrong)
	case e.Record == nil && (e.ID == "" || u.replace):
		return u.skip(e.Place, id, errors.New("there is no record"))
	case e.Record == nil:
		u.removed = append(u.removed, id)
		return incoming{}, nil
	case len(e.Record) > clients.MaxRecordBytes:
		return u.skip(e.Place, id, fmt.Errorf("the record has %d bytes; at most %d are allowed", len(e.Record), clients.MaxRecordBytes))
	}
	if current := u.source.clientOf(id); current != nil && current.HasRecord(e.Record) {
		return incoming{client: current, place: e.Place, known: true}, nil
	}
	client, err := u.plan.make(u.source, e.Record)
	switch {
	case errors.Is(err, errNeedsDocument):
		return incoming{place: e.Place, text: bytes.Clone(e.Record)}, nil
	case err != nil:
		return u.skip(e.Place, id, err)
	case e.ID != "" && e.ID != client.ID:
		return u.skip(e.Place, e.ID, fmt.Errorf("the record has the client_id '%s', but its source keeps it under another", client.ID))
	}
	return incoming{client: client, place: e.Place}, nil
}

// skip skips a record that is wrong, and returns what the source had under its
// client_id, which stays. The error is that of the record if it ends the update.
func (u *update) skip(place, id string, err error) (incoming, error) {
	if clients.CheckID(id) != nil {
		id = ""
	}
	wrong := &clients.RecordError{Place: place, ClientID: id, Err: err}
	if !u.source.info.SkipBad {
		return incoming{}, wrong
	}
	u.bad = append(u.bad, wrong)
	current := u.source.clientOf(id)
	return incoming{client: current, place: place, known: current != nil}, nil
}

// apply puts the update in force. Meanwhile, nothing else can be, unless the update has
// all records of a source.
func (u *update) apply(ctx context.Context) (changed bool, err error) {
	d := u.directory
	if u.replace && d.loaded() {
		if done, changed, err := u.applyAside(ctx); done {
			return changed, err
		}
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	t, err := u.prepare()
	if err == nil {
		err = u.index(ctx, t)
	}
	if err != nil {
		return false, err
	}
	return t.finish()
}

// prepare begins a transaction, and decides which clients it removes. The caller holds
// changing.
func (u *update) prepare() (*transaction, error) {
	u.plan.locked, u.places = true, nil
	t := u.plan.begin()
	hold := u.directory.maxHold
	if !u.directory.loaded() {
		hold = maxFirstHold
	}
	t.edit.EndAt(time.Now().Add(hold + holdPerRecord*time.Duration(len(u.records))))
	for i := range u.records {
		if err := u.resolve(&u.records[i]); err != nil {
			return nil, err
		}
	}
	return t, u.compare()
}

// index removes and adds clients.
func (u *update) index(ctx context.Context, t *transaction) error {
	u.progress.next("indexed")
	for i, client := range u.outdated {
		u.plan.pace.step()
		if err := u.check(ctx, i); err != nil {
			return err
		}
		t.remove(client)
	}
	for i, record := range u.records {
		if err := u.check(ctx, i); err != nil {
			return err
		}
		if !t.edit.GoOn() {
			return clients.ErrLate
		}
		if record.client == nil || record.known {
			continue
		}
		u.plan.pace.step()
		if err := u.add(t, record); err != nil {
			return err
		}
	}
	if u.replace {
		maps.Copy(u.kept, t.added)
		t.replaced, t.all = u.source, u.kept
	}
	return nil
}

// resolve makes the client of a record that names documents, and of one whose client
// was known when it was read, and has been made again since then.
func (u *update) resolve(record *incoming) (err error) {
	if record.known && !u.source.has(record.client) {
		*record = incoming{place: record.place, text: []byte(record.client.Record())}
	}
	if record.client != nil || record.text == nil {
		return nil
	}
	if current := u.source.clientOf(clients.GuessID(record.text)); current != nil && current.HasRecord(record.text) {
		record.client, record.known = current, true
		return nil
	}
	if record.client, err = u.plan.make(u.source, record.text); err != nil {
		*record, err = u.skip(record.place, clients.GuessID(record.text), err)
	}
	return err
}

// compare finds out which clients of the source stay, and which are outdated: those that
// it no longer has, and those whose records have changed.
func (u *update) compare() (err error) {
	u.outdated, u.kept = nil, make(map[*clients.Client]struct{})
	for i := range u.records {
		record := &u.records[i]
		if !record.known {
			continue
		}
		if _, again := u.kept[record.client]; again {
			err := twice(record.client.ID, u.source)
			if *record, err = u.skip(record.place, record.client.ID, err); err != nil {
				return err
			}
			continue
		}
		u.kept[record.client] = struct{}{}
	}
	if u.replace {
		for client := range u.source.clients {
			if _, stays := u.kept[client]; !stays {
				u.outdated = append(u.outdated, client)
			}
		}
		return nil
	}
	ids := slices.Clone(u.removed)
	for _, record := range u.records {
		if record.client != nil && !record.known {
			ids = append(ids, record.client.ID)
		}
	}
	for _, id := range ids {
		if client := u.source.clientOf(id); client != nil {
			u.outdated = append(u.outdated, client)
		}
	}
	return nil
}

// add adds a client. If that is not possible, the record is skipped, or the error ends
// the update.
func (u *update) add(t *transaction, record incoming) error {
	err := t.add(record.client, record.place)
	if err == nil || errors.Is(err, clients.ErrLate) {
		return err
	}
	return u.keepOld(t, record, err)
}

// keepOld keeps what the source had under the client_id of a wrong record. If another
// new record has what that one has, it is wrong as well.
func (u *update) keepOld(t *transaction, record incoming, why error) error {
	if _, err := u.skip(record.place, record.client.ID, why); err != nil {
		return err
	}
	// one may lead to the next, for as many as there are
	for olds := u.oldOf(t, record.client.ID); len(olds) > 0; {
		old := olds[len(olds)-1]
		u.kept[old] = struct{}{}
		newcomer := t.restore(old)
		if newcomer == nil {
			olds = olds[:len(olds)-1]
			continue
		}
		t.drop(newcomer)
		why := fmt.Errorf("it has what client '%s' keeps, because the new record of that client is wrong", old.ID)
		if _, err := u.skip(u.placeOf(newcomer), newcomer.ID, why); err != nil {
			return err
		}
		olds = append(olds, u.oldOf(t, newcomer.ID)...)
	}
	return nil
}

// oldOf returns the client that has been removed because there is another record of it,
// if any.
func (u *update) oldOf(t *transaction, id string) []*clients.Client {
	if old := u.source.clientOf(id); old != nil && t.hasRemoved(old) {
		return []*clients.Client{old}
	}
	return nil
}

// placeOf returns where the record of a new client is.
func (u *update) placeOf(c *clients.Client) string {
	if u.places == nil {
		u.places = make(map[*clients.Client]string, len(u.records))
		for _, record := range u.records {
			u.places[record.client] = record.place
		}
	}
	return u.places[c]
}
