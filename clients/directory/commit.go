package directory

import (
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// finish puts a transaction in force if it changes anything.
func (t *transaction) finish() (changed bool, err error) {
	if t.edit.Late() {
		return false, clients.ErrLate
	}
	if len(t.added)+len(t.removed) == 0 {
		return false, nil
	}
	if t.directory.loaded() && t.grows() { // a new configuration may be what frees memory
		if err := checkMemory(); err != nil {
			return false, err
		}
	}
	t.edit.EndAt(time.Time{}) // those that have waited need not wait for the next update
	return true, t.directory.commit(t)
}

// maxGrowth is by how many bytes records may grow together whatever the memory, so that
// clients can be disabled.
const maxGrowth = 4 << 10

// grows reports whether a transaction takes more memory. Whatever has used it up, clients
// can be disabled and removed.
func (t *transaction) grows() bool {
	growth := 0
	for c := range t.added {
		growth += len(c.Record())
	}
	for c := range t.removed {
		growth -= len(c.Record())
	}
	return len(t.added) > len(t.removed) || growth > maxGrowth
}

// commit puts a transaction in force. An error changes nothing.
func (d *Directory) commit(t *transaction) error {
	t.settle()
	registry := t.edit.Registry()
	if err := d.publish(registry); err != nil {
		return err
	}
	d.concurrent.note(t)
	now := d.config.Now()
	warnings := t.plan.warnings.texts()
	changed := d.waiting.change(t)
	d.mu.Lock()
	t.changeSources()
	for _, s := range d.sources {
		s.size = len(s.clients)
	}
	d.mu.Unlock()
	warnings = append(warnings, d.documents.change(t, now)...)
	d.config.warnAll(warnings)
	changed.report(d)
	if d.loaded() {
		d.reported.Update(d.config.Logger, registry)
	}
	return nil
}

// publish has the registry used. It is known before it is used, so that nothing is lost
// if its user begins only now.
func (d *Directory) publish(registry *clients.Registry) error {
	before, used := d.Registry(), false
	defer func() {
		if !used { // Use may panic
			d.registry.Store(before)
		}
	}()
	d.registry.Store(registry)
	if d.loaded() {
		if err := d.config.Use(registry); err != nil {
			return err
		}
	}
	used = true
	return nil
}

// changeSources notes which clients the sources have after a transaction.
func (t *transaction) changeSources() {
	if t.replaced != nil {
		t.replaced.before = len(t.replaced.clients)
		t.replaced.clients = t.all
		return
	}
	for c := range t.removed {
		delete(t.directory.sources[c.Rank()].clients, c)
	}
	for c := range t.added {
		t.directory.sources[c.Rank()].clients[c] = struct{}{}
	}
}
