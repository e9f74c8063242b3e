package revocation

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// crlPlace is a file or a URL.
type crlPlace struct {
	address string
	name    string // the address without a password
	isURL   bool

	// busy is held by who loads the place.
	busy sync.Mutex
	file *source.File

	// proven are CRLs whose signatures have been verified, the newest of each
	// key. unproven are up to two others: the newest, if need be, and the last.
	proven, unproven []*CRL
	// last is the one that was loaded last.
	last *CRL

	due time.Time
	// busyUntil is when a fetch that is under way will have ended, zero without.
	busyUntil time.Time
	loaded    time.Time
	// looking is why the file cannot be read, parsing why what was read last is
	// not in force.
	looking, parsing error
	// since is when a file began to fail as it does, told that it was reported.
	since time.Time
	told  bool

	// stale and foreign are the last that there was a warning about, examined
	// is the last that was compared with the CAs.
	stale, foreign, examined *CRL
}

// accept takes a CRL in, and reports whether what is in force has changed. One
// that cannot be told from a forgery stands beside the others.
func (p *crlPlace) accept(crl *CRL) (changed bool, err error) {
	p.settle()
	for i, old := range p.proven {
		if crl.signedBy(old.signer.Load()) != nil {
			continue
		}
		if err := crl.Replaces(old); err != nil {
			changed = p.last != old
			p.last = old
			return changed, err
		}
		changed = len(p.unproven) > 0
		if !bytes.Equal(crl.list.Raw, old.list.Raw) {
			p.proven[i], changed = crl, true
		}
		p.last, p.unproven = p.proven[i], nil
		return changed, nil
	}
	newest := crl
	for _, other := range p.unproven {
		if bytes.Equal(other.list.Raw, crl.list.Raw) {
			crl = other
		}
		if !bytes.Equal(other.list.RawIssuer, crl.list.RawIssuer) {
			continue
		}
		if e := newest.Replaces(other); e != nil {
			newest, err = other, e
		}
	}
	changed = p.last != crl
	p.last, p.unproven = crl, []*CRL{crl}
	if err != nil {
		p.unproven = []*CRL{newest, crl}
	}
	return changed, err
}

// settle moves the CRLs that have been verified meanwhile to the proven ones,
// of which the newest of each key remains.
func (p *crlPlace) settle() {
	p.unproven = slices.DeleteFunc(p.unproven, func(crl *CRL) bool {
		if crl.signer.Load() == nil {
			return false
		}
		p.prove(crl)
		return true
	})
}

func (p *crlPlace) prove(crl *CRL) {
	for i, old := range p.proven {
		if crl.signedBy(old.signer.Load()) == nil {
			if crl.Replaces(old) == nil {
				p.proven[i] = crl
			}
			return
		}
	}
	p.proven = append(p.proven, crl)
}

// speaks returns the one that is in force, of the issuer that was last loaded.
func (p *crlPlace) speaks() *CRL {
	if len(p.unproven) > 0 {
		return p.unproven[0]
	}
	return p.last
}

// failure is what is wrong with the place, or nil.
func (p *crlPlace) failure() error {
	if p.looking != nil {
		return p.looking
	}
	return p.parsing
}

// looked notes the outcome of a look at a file, and returns what is to be
// reported of it.
func (p *crlPlace) looked(now time.Time, changed bool, looking, parsing error) (report bool, err error) {
	before := p.failure()
	p.looking = looking
	if changed {
		p.parsing = parsing
	}
	err = p.failure()
	if err == nil {
		p.loaded, p.told = now, false
		return changed || before != nil, nil
	}
	if changed || before == nil || before.Error() != err.Error() {
		p.since, p.told = now, false
	}
	report = !p.told && now.Sub(p.since) >= source.QuietTime
	p.told = p.told || report
	return report, err
}

func (p *crlPlace) takeOver(old *crlPlace, mu *sync.Mutex, refresh time.Duration) {
	if !p.isURL { // a fetch may take long, and is of no interest
		old.busy.Lock()
		p.file.TakeOver(old.file)
		old.busy.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	old.settle()
	p.proven, p.unproven, p.last = slices.Clone(old.proven), slices.Clone(old.unproven), old.last
	p.due, p.loaded = old.due, old.loaded
	p.looking, p.parsing, p.since, p.told = old.looking, old.parsing, old.since, old.told
	if end := old.loaded.Add(refresh); !old.loaded.IsZero() && end.Before(p.due) { // refresh has become shorter
		p.due = end
	}
}
