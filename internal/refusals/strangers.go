package refusals

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// maxStrangers bounds the strangers of a realm. maxRegulars is how many of them may
	// have been refused more than once; the room that is left is for those refused once.
	maxStrangers = 1000
	maxRegulars  = 800
)

// isStranger reports whether the refusal is about a certificate that belongs to nobody. For
// other reasons, such as an expired certificate, that is not known.
func (r *Record) isStranger() bool {
	if r.Certificate == nil || r.ClientID != "" && !r.Claimed {
		return false
	}
	return r.Reason == string(validators.CertificateUnknown) || r.Reason == string(validators.CertificateUntrusted)
}

// strangers are the certificates that were refused lately. One that was refused once never
// takes the room of one that was refused twice: ten thousand strangers who come once do
// not hide the one who tries again and again.
type strangers struct {
	known atomic.Int64 // how many there are, for forget

	mu sync.Mutex
	// once and regulars have *Stranger, the last refused first
	once, regulars list.List
	byThumbprint   map[string]*list.Element
}

// add notes that a certificate was refused, and forgets those that were refused before
// oldest.
func (s *strangers) add(r *Record, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stranger := &Stranger{Certificate: *r.Certificate, First: r.At, Times: 1}
	if element := s.byThumbprint[r.Certificate.Thumbprint]; element != nil {
		stranger = element.Value.(*Stranger)
		stranger.Times++
		s.remove(element)
	}
	stranger.Reason, stranger.Detail, stranger.RemoteIP = r.Reason, r.Detail, r.RemoteIP
	stranger.ErrorID, stranger.Hint, stranger.Register, stranger.Last = r.ErrorID, r.Hint, r.Register, r.At
	s.byThumbprint[stranger.Thumbprint] = s.listOf(stranger).PushFront(stranger)
	switch {
	case s.regulars.Len() > maxRegulars:
		s.remove(s.regulars.Back())
	case s.once.Len()+s.regulars.Len() > maxStrangers:
		s.remove(s.once.Back())
	}
	s.prune(oldest)
}

func (s *strangers) listOf(stranger *Stranger) *list.List {
	if stranger.Times > 1 {
		return &s.regulars
	}
	return &s.once
}

// remove removes a stranger from the lists, which it must be in. While Times changes, an
// element is still in the list of before.
func (s *strangers) remove(element *list.Element) {
	s.once.Remove(element) // only the list that has the element removes it
	s.regulars.Remove(element)
	delete(s.byThumbprint, element.Value.(*Stranger).Thumbprint)
}

// prune forgets those who were last refused before oldest.
func (s *strangers) prune(oldest time.Time) {
	for _, strangers := range []*list.List{&s.once, &s.regulars} {
		for last := strangers.Back(); last != nil && last.Value.(*Stranger).Last.Before(oldest); last = strangers.Back() {
			s.remove(last)
		}
	}
	s.known.Store(int64(len(s.byThumbprint)))
}

func (s *strangers) forget(thumbprint string) {
	if s.known.Load() == 0 {
		return // so that admitted requests hardly ever wait for the lock
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if element := s.byThumbprint[thumbprint]; element != nil {
		s.remove(element)
		s.known.Store(int64(len(s.byThumbprint)))
	}
}

func (s *strangers) count(oldest time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune(oldest)
	return len(s.byThumbprint)
}

// list returns the strangers, the last refused first, and how many do not fit into limit,
// 0 for none.
func (s *strangers) list(limit int, oldest time.Time) (listed []Stranger, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune(oldest)
	number := len(s.byThumbprint)
	if limit > 0 {
		number = min(number, limit)
	}
	listed = make([]Stranger, 0, number)
	once, regular := s.once.Front(), s.regulars.Front()
	for range number {
		next := &once
		if once == nil || regular != nil && regular.Value.(*Stranger).Last.After(once.Value.(*Stranger).Last) {
			next = &regular
		}
		listed = append(listed, *(*next).Value.(*Stranger))
		*next = (*next).Next()
	}
	return listed, len(s.byThumbprint) - number
}
