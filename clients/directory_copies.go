package clients

import (
	"crypto/sha256"
	"maps"
	"slices"
	"time"
)

// recall gets the copies of clients that are new here, and takes over what the
// directory before has not saved.
func (d *Directory) recall(changes []change) {
	d.contested, d.unsaved = make(map[string]struct{}), make(map[string]int)
	if before := d.config.Before; before != nil {
		before.mu.Lock()
		maps.Copy(d.contested, before.contested)
		maps.Copy(d.unsaved, before.unsaved)
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
		if found.Address == [sha256.Size]byte{} {
			d.contested[found.ClientID] = struct{}{}
		}
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
	if now.Sub(newest.Fetched).Abs() < copyUse && opened.url.Begin(newest.Content, newest.Fetched) {
		fetched, _, _ := opened.takeFetched()
		opened.contents, opened.noted = *fetched, newest.Fetched
	}
}

// noteCopies notes which copies have to be stored after a change: of JWKS behind
// URLs, and of others that list what another client's lists too.
func (d *Directory) noteCopies(p *plan, now time.Time) {
	for _, c := range d.registry.Conflicts() {
		holder := c.Holder.Client
		if _, known := d.contested[holder.ID]; c.Holder.Kind == KindJWKS && holder.jwksURI == "" && !known {
			d.contested[holder.ID] = struct{}{}
			d.unsaved[holder.ID]++
		}
	}
	for _, client := range p.relisted {
		if _, contested := d.contested[client.ID]; client.jwksURI != "" || contested {
			d.unsaved[client.ID]++
		}
	}
	for _, c := range p.changes {
		if c.document != nil && c.document.url != nil {
			d.noteCopy(c.document, now)
		}
	}
}

func (d *Directory) noteCopy(fetched *document, now time.Time) {
	fetched.noted = now
	for _, user := range fetched.users {
		d.unsaved[user]++
	}
}

// SaveCopies has those copies stored that are not as they should be. An error
// ends it; what is left is for the next call.
func (d *Directory) SaveCopies(save func(Copy) error) error {
	d.mu.Lock()
	ids := slices.Collect(maps.Keys(d.unsaved))
	d.mu.Unlock()
	for _, id := range ids {
		d.mu.Lock()
		noted, client := d.unsaved[id], d.registry.Client(id)
		var c Copy
		if client != nil {
			c = d.copyOf(client)
		}
		d.mu.Unlock()
		if client != nil {
			if err := save(c); err != nil {
				return err
			}
		}
		d.mu.Lock()
		if d.unsaved[id] == noted {
			delete(d.unsaved, id)
		}
		d.mu.Unlock()
	}
	return nil
}

func (d *Directory) copyOf(client *Client) Copy {
	c := Copy{ClientID: client.ID, Listed: make(map[[sha256.Size]byte]time.Time, len(client.listed))}
	for _, l := range client.listed {
		c.Listed[l.sum] = l.since
	}
	if document := d.open[documentKey{KindJWKS, client.jwksURI, true}]; document != nil {
		c.Address = sha256.Sum256([]byte(client.jwksURI))
		c.Content, _ = document.url.Content()
		c.Fetched = document.url.State().Success
	}
	return c
}

// Copied are the clients of whose JWKS there should be copies.
func (d *Directory) Copied() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make(map[string]struct{})
	for _, document := range d.urls {
		for _, user := range document.users {
			ids[user] = struct{}{}
		}
	}
	for id := range d.contested {
		if d.registry.Client(id) != nil {
			ids[id] = struct{}{}
		}
	}
	return slices.Collect(maps.Keys(ids))
}

// CopiesLost tells of clients whose copies are not there any more.
func (d *Directory) CopiesLost(clientIDs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range clientIDs {
		d.unsaved[id]++
	}
}
