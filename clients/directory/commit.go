package directory

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"

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

// commit puts a transaction in force. An error changes nothing.
func (d *Directory) commit(t *transaction) error {
	t.settle()
	registry := t.edit.Registry()
	if err := d.publish(registry); err != nil {
		return err
	}
	d.concurrent.note(t)
	refused, admitted := t.newWaits()
	now := d.config.Now()
	warnings := t.plan.warnings.texts()
	d.changeWaiting(t)
	d.mu.Lock()
	if len(d.documents.used) > 0 {
		for c := range t.removed {
			d.documents.drop(c)
		}
	}
	for c, used := range t.plan.usedBy {
		if _, added := t.added[c]; added {
			d.documents.use(c, used)
		}
	}
	t.changeSources()
	for _, s := range d.sources {
		s.size = len(s.clients)
	}
	d.documents.version += len(t.documents)
	for _, c := range t.documents {
		c.document.contents, c.document.saved = c.contents, time.Time{}
		c.document.setInForce(now)
		warnings = append(warnings, c.document.warningTexts()...)
	}
	for _, opened := range t.plan.opened {
		warnings = append(warnings, opened.warningTexts()...)
	}
	d.mu.Unlock()
	d.config.warnAll(warnings)
	d.reportRefused(refused)
	d.reportAdmitted(admitted)
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

// newWaits returns the clients that begin to wait and those that are in force after
// having waited, in the order of their client_id. A changed record that waits for the
// same client as before is not new.
func (t *transaction) newWaits() (refused, admitted []*clients.Client) {
	waiting := t.directory.waiting.Load()
	for c, w := range t.waits {
		if _, removed := t.removed[c]; removed {
			continue
		}
		if w == nil {
			if waiting.of(c) != nil {
				admitted = append(admitted, c)
			}
			continue
		}
		if before := waiting.under(c.ID, c.Rank()); before == nil || before.holder.ID != w.holder.ID {
			refused = append(refused, c)
		}
	}
	byID := func(a, b *clients.Client) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Rank(), b.Rank()))
	}
	slices.SortFunc(refused, byID)
	slices.SortFunc(admitted, byID)
	return refused, admitted
}

// reportRefused logs which records are refused because clients of a source with a
// higher rank have what they claim, the first few one by one.
func (d *Directory) reportRefused(refused []*clients.Client) {
	waiting := d.waiting.Load()
	for i, c := range refused {
		s, w := d.sources[c.Rank()], waiting.of(c)
		logger := d.config.Logger.With(zap.String("source", s.label()), zap.String("place", s.name))
		if i == maxWarnings {
			logger.Error("more client records refused", zap.Int("records", len(refused)-i))
			return
		}
		logger.Error("client record refused; a source of a higher rank has its client_id or credential",
			append((&clients.RecordError{Place: w.place, ClientID: c.ID}).Fields(),
				zap.String("holder", w.holder.ID), zap.String("holder_source", w.holder.Source()), zap.Error(w.err))...)
	}
}

// reportAdmitted logs which records are no longer refused.
func (d *Directory) reportAdmitted(admitted []*clients.Client) {
	for i, c := range admitted {
		s := d.sources[c.Rank()]
		logger := d.config.Logger.With(zap.String("source", s.label()), zap.String("place", s.name))
		if i == maxWarnings {
			logger.Info("more client records no longer refused", zap.Int("records", len(admitted)-i))
			return
		}
		logger.Info("client record no longer refused", zap.String("client_id", c.ID))
	}
}
