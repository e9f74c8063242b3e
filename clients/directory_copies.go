package clients

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"time"
)

// copyNotes are what a directory knows of the copies of its JWKS in storage. They
// are guarded by its mu.
type copyNotes struct {
	// newest is the latest time of which anything is known to be listed
	newest time.Time
	// kept are clients with a copy, or that need one: those whose JWKS is behind
	// a URL or in conflict with another, and those whose JWKS was
	kept map[string]struct{}
	// needed is set if there is a JWKS, and unread are clients of whom it is not
	// known then whether storage has a copy
	needed bool
	unread map[string]struct{}
	// unsaved are those whose copy is to be stored or deleted
	unsaved map[string]unsaved
	// found are copies as storage has them, to be looked at by the next poll
	found map[string]Copy
}

// unsaved tells how often that was noted, and whether storing it failed since.
type unsaved struct {
	noted  int
	failed bool
}

func newCopyNotes() copyNotes {
	return copyNotes{
		kept: make(map[string]struct{}), unread: make(map[string]struct{}),
		unsaved: make(map[string]unsaved), found: make(map[string]Copy),
	}
}

// note notes that a copy is to be stored.
func (n *copyNotes) note(clientID string) {
	n.kept[clientID] = struct{}{}
	n.unsaved[clientID] = unsaved{noted: n.unsaved[clientID].noted + 1}
}

// learn notes what a copy tells of the time.
func (n *copyNotes) learn(c Copy) {
	for _, since := range c.Listed {
		if since.After(n.newest) {
			n.newest = since
		}
	}
}

// stamp is since when something is listed that was not: later than all that was,
// even if the clock was ahead then.
func (n *copyNotes) stamp(now time.Time) time.Time {
	if now.After(n.newest) {
		return now
	}
	return n.newest.Add(1)
}

// recall gets the copies of clients that are new here, and takes over what the
// directory before knows of others.
func (d *Directory) recall(changes []change) {
	d.copies = newCopyNotes()
	if before := d.config.Before; before != nil {
		before.mu.Lock()
		d.copies.newest, d.copies.needed = before.copies.newest, before.copies.needed
		maps.Copy(d.copies.kept, before.copies.kept)
		maps.Copy(d.copies.unread, before.copies.unread)
		maps.Copy(d.copies.unsaved, before.copies.unsaved)
		maps.Copy(d.copies.found, before.copies.found)
		before.mu.Unlock()
	}
	if d.config.Recall == nil {
		return
	}
	var ids []string
	for _, c := range changes {
		for i := range c.records {
			if r := &c.records[i]; r.hasJWKS() && (d.registry == nil || d.registry.Client(r.ClientID) == nil) {
				ids = append(ids, r.ClientID)
			}
		}
	}
	d.recalled, d.recalledAt = make(map[string]Copy), make(map[[sha256.Size]byte]Copy)
	for _, found := range d.config.Recall(ids) {
		d.recalled[found.ClientID] = found
		d.copies.learn(found)
		d.copies.kept[found.ClientID] = struct{}{}
		if found.Content != nil && found.Fetched.After(d.recalledAt[found.Address].Fetched) {
			d.recalledAt[found.Address] = found
		}
	}
}

// listedBefore returns what is known of a client's JWKS.
func (d *Directory) listedBefore(clientID string) []listing {
	if d.registry != nil {
		if client := d.registry.Client(clientID); client != nil {
			return client.listed
		}
	}
	var list []listing
	for sum, since := range d.recalled[clientID].Listed {
		list = append(list, listing{sum: sum, since: since})
	}
	return list
}

// begin begins a document with the newest copy, if that is new enough.
func (d *Directory) begin(opened *document, now time.Time) {
	newest := d.recalledAt[sha256.Sum256([]byte(opened.place))]
	if now.Sub(newest.Fetched).Abs() < copyUse && opened.url.Begin(newest.Content, newest.Fetched) && opened.began() {
		opened.noted = newest.Fetched
	}
}

// noteCopies notes which copies have to be stored after a change: of JWKS behind
// URLs, of others that list what another client's lists too, and of what has such
// a copy.
func (d *Directory) noteCopies(p *plan, before *Registry, now time.Time) {
	n := &d.copies
	for _, c := range d.registry.Conflicts() {
		for _, client := range []*Client{c.Holder.Client, c.Client} {
			if _, known := n.kept[client.ID]; c.Holder.Kind == KindJWKS && !known {
				n.note(client.ID)
			}
		}
	}
	for _, client := range p.relisted {
		if p.stamp.After(n.newest) {
			n.newest = p.stamp
		}
		if _, kept := n.kept[client.ID]; kept || client.jwksURI != "" {
			n.note(client.ID)
		}
	}
	for _, c := range p.changes {
		if c.document != nil && c.document.url != nil {
			d.noteCopy(c.document, now)
		}
	}
	needed := n.needed
	for client := range d.registry.All() {
		n.needed = n.needed || client.hasJWKS()
	}
	if n.needed {
		for client := range d.registry.All() {
			if _, recalled := d.recalled[client.ID]; !recalled && (!needed || before.Client(client.ID) == nil) {
				n.unread[client.ID] = struct{}{}
			}
		}
	}
	for id := range n.kept {
		switch client := d.registry.Client(id); {
		case client == nil:
			delete(n.kept, id) // it is read again if the client comes back
		case !client.hasJWKS():
			n.note(id) // it has no claim any more to what its JWKS listed
		}
	}
}

func (d *Directory) noteCopy(fetched *document, now time.Time) {
	fetched.noted = now
	for _, user := range fetched.users {
		d.copies.note(user)
	}
}

// correction is a copy that knows something better than the registry.
type correction struct {
	Copy
	status
}

// corrections returns what the copies that were read or stored know better.
func (d *Directory) corrections(now time.Time) []change {
	d.mu.Lock()
	found := maps.Clone(d.copies.found)
	clear(d.copies.found)
	for _, c := range found {
		d.copies.learn(c)
	}
	d.mu.Unlock()
	var changes []change
	for id, c := range found {
		client := d.registry.Client(id)
		if client == nil {
			continue
		}
		document := d.open[documentKey{KindJWKS, client.jwksURI, true}]
		if document != nil && c.Content != nil && c.Address == sha256.Sum256([]byte(client.jwksURI)) && now.Sub(c.Fetched).Abs() < copyUse {
			if document.url.Fetching() {
				d.findLater(c) // the copy is needed if that fails
			} else {
				document.url.Begin(c.Content, c.Fetched) // the next poll finds it, as if it was fetched
			}
		}
		if corrected(client, c.Listed) != nil {
			changes = append(changes, change{correction: &correction{Copy: c}})
		}
	}
	return changes
}

// findLater has a copy looked at by the next poll, unless there is a later one.
func (d *Directory) findLater(c Copy) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.copies.found[c.ClientID]; !known {
		d.copies.found[c.ClientID] = c
	}
}

// correct corrects the listings of clients.
func (p *plan) correct(entries []entry, corrections map[string]*correction) []entry {
	cloned := false
	for i := range entries {
		c := corrections[entries[i].client.ID]
		if c == nil {
			continue
		}
		if list := corrected(entries[i].client, c.Listed); list != nil {
			if !cloned {
				entries, cloned = slices.Clone(entries), true
			}
			entries[i].client = entries[i].client.relisted(list)
			p.relisted = append(p.relisted, entries[i].client)
		}
	}
	return entries
}

// SaveCopies has those copies stored that are not as they should be, and reads
// those of clients that have come meanwhile. What other nodes have stored counts
// with the next poll. One that cannot be stored keeps no other from being, unless
// storage does not answer; it is for the next call.
func (d *Directory) SaveCopies(ctx context.Context, store *CopyStore) error {
	var failed failures
	failed.add(d.readCopies(ctx, store))
	for _, id := range d.toSave() {
		if ctx.Err() != nil {
			break
		}
		err := d.saveCopy(ctx, store, id)
		failed.add(err)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return failed.join()
}

// readCopies reads those copies of which it is not known whether they are there.
func (d *Directory) readCopies(ctx context.Context, store *CopyStore) error {
	d.mu.Lock()
	ids := slices.Collect(maps.Keys(d.copies.unread))
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	copies, err := store.Load(ctx, ids)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range copies {
		d.copies.found[c.ClientID] = c
		d.copies.kept[c.ClientID] = struct{}{}
		delete(d.copies.unread, c.ClientID)
		if client := d.registry.Client(c.ClientID); client != nil && !client.hasJWKS() {
			d.copies.note(c.ClientID)
		}
	}
	if err == nil {
		for _, id := range ids {
			delete(d.copies.unread, id)
		}
	}
	return err
}

// toSave returns whose copies are to be stored: first of those who hold what
// others want, for they lose it otherwise, and last of those that failed before.
func (d *Directory) toSave() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	contested := make(map[string]struct{})
	for _, c := range d.registry.Conflicts() {
		contested[c.Holder.Client.ID] = struct{}{}
	}
	turn := func(id string) int {
		_, first := contested[id]
		switch {
		case d.copies.unsaved[id].failed:
			return 2
		case first:
			return 0
		}
		return 1
	}
	return slices.SortedFunc(maps.Keys(d.copies.unsaved), func(a, b string) int { return cmp.Compare(turn(a), turn(b)) })
}

func (d *Directory) saveCopy(ctx context.Context, store *CopyStore, id string) error {
	d.mu.Lock()
	before, client := d.copies.unsaved[id], d.registry.Client(id)
	var c Copy
	var certificates []*x509.Certificate
	if client != nil {
		c, certificates = d.copyOf(client)
	}
	d.mu.Unlock()

	var err error
	switch {
	case client == nil: // the copy stays for a while
	case !client.hasJWKS():
		err = store.Delete(ctx, id)
	default:
		c.Content = keySetOf(certificates)
		c, err = store.Save(ctx, c)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.copies.unsaved[id]
	switch {
	case err != nil:
		d.copies.unsaved[id] = unsaved{now.noted, true}
		return err
	case now.noted == before.noted:
		delete(d.copies.unsaved, id)
		if client == nil || !client.hasJWKS() {
			delete(d.copies.kept, id)
		}
	}
	if client != nil && client.hasJWKS() {
		d.copies.found[id] = c
	}
	return nil
}

// copyOf returns a client's copy, without the JWK Set of the certificates.
func (d *Directory) copyOf(client *Client) (Copy, []*x509.Certificate) {
	c := Copy{ClientID: client.ID, Listed: make(map[[sha256.Size]byte]time.Time, len(client.listed))}
	for _, l := range client.listed {
		c.Listed[l.sum] = l.since
	}
	document := d.open[documentKey{KindJWKS, client.jwksURI, true}]
	if document == nil {
		return c, nil
	}
	c.Address, c.Fetched = sha256.Sum256([]byte(client.jwksURI)), document.at
	return c, document.certificates
}

// Copied are the clients of whose JWKS there should be copies, and those of whose
// there may be: one that could not be read is not known.
func (d *Directory) Copied() (wanted, possible []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for client := range d.registry.All() {
		if !client.hasJWKS() {
			continue
		}
		if _, kept := d.copies.kept[client.ID]; client.jwksURI != "" || kept {
			wanted = append(wanted, client.ID)
		} else {
			possible = append(possible, client.ID)
		}
	}
	return wanted, possible
}

// CopiesLost tells of clients whose copies are not there any more.
func (d *Directory) CopiesLost(clientIDs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range clientIDs {
		d.copies.note(id)
	}
}
