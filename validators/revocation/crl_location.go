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

	file *source.Watched // nil for a URL

	// busy is held by who fetches from a URL, the fields below it are only for
	// one.
	busy sync.Mutex
	due  time.Time
	// busyUntil is when a fetch that is under way will have ended, zero without.
	busyUntil time.Time
	loaded    time.Time
	failure   error

	// proven are CRLs whose signatures have been verified, the newest of each
	// key. unproven are up to two others: the newest, if need be, and the last.
	proven, unproven []*CRL
	// last is the one that was loaded last.
	last *CRL

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

// health returns when the place was last loaded, and why that failed since.
func (p *crlPlace) health() (loaded time.Time, failure error) {
	if p.isURL {
		return p.loaded, p.failure
	}
	return p.file.Success(), p.file.Failure()
}

func (p *crlPlace) takeOver(old *crlPlace, mu *sync.Mutex, refresh time.Duration) {
	if !p.isURL {
		p.file.TakeOver(old.file)
	}
	mu.Lock()
	defer mu.Unlock()
	old.settle()
	p.proven, p.unproven, p.last = slices.Clone(old.proven), slices.Clone(old.unproven), old.last
	p.due, p.loaded, p.failure = old.due, old.loaded, old.failure
	if end := old.loaded.Add(refresh); !old.loaded.IsZero() && end.Before(p.due) { // refresh has become shorter
		p.due = end
	}
}
