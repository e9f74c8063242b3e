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
// takes the room of one that was refused twice: ten thousand strangers a second who come
// once do not hide the one who tries again each minute.
type strangers struct {
	known atomic.Int64 // how many there are, for forget

	mu sync.Mutex
	// once and regulars have the last refusal of each, a *Record whose Times and First are
	// the stranger's, the last refused first
	once, regulars list.List
	byThumbprint   map[string]*list.Element
	lately         lately
}

// add notes that a certificate was refused, and forgets those that were refused before
// oldest.
func (s *strangers) add(r *Record, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := *r
	last.Times, last.First = 1, r.At
	if element := s.byThumbprint[r.Certificate.Thumbprint]; element != nil {
		before := element.Value.(*Record)
		last.Times, last.First = before.Times+1, before.First
		s.remove(element)
	} else if s.lately.has(r.Certificate.Thumbprint) {
		last.Times++
	}
	s.byThumbprint[r.Certificate.Thumbprint] = s.listOf(&last).PushFront(&last)
	switch {
	case s.regulars.Len() > maxRegulars:
		s.remove(s.regulars.Back())
	case s.once.Len()+s.regulars.Len() > maxStrangers:
		s.lately.note(s.once.Back().Value.(*Record).Certificate.Thumbprint)
		s.remove(s.once.Back())
	}
	s.prune(oldest)
}

func (s *strangers) listOf(last *Record) *list.List {
	if last.Times > 1 {
		return &s.regulars
	}
	return &s.once
}

// remove removes a stranger from the lists, which it must be in.
func (s *strangers) remove(element *list.Element) {
	s.once.Remove(element) // only the list that has the element removes it
	s.regulars.Remove(element)
	delete(s.byThumbprint, element.Value.(*Record).Certificate.Thumbprint)
}

// prune forgets those who were last refused before oldest.
func (s *strangers) prune(oldest time.Time) {
	for _, strangers := range []*list.List{&s.once, &s.regulars} {
		for last := strangers.Back(); last != nil && last.Value.(*Record).At.Before(oldest); last = strangers.Back() {
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

// find returns the last refusal of a stranger, if it has this error id.
func (s *strangers) find(errorID string, oldest time.Time) (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune(oldest)
	for _, element := range s.byThumbprint {
		if last := element.Value.(*Record); last.ErrorID == errorID {
			return *last, true
		}
	}
	return Record{}, false
}

func (r *Record) stranger() Stranger {
	return Stranger{
		Certificate: *r.Certificate, Reason: r.Reason, Detail: r.Detail, RemoteIP: r.RemoteIP, ErrorID: r.ErrorID,
		Hint: r.Hint, Register: r.Register, Times: r.Times, First: r.First, Last: r.At,
	}
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
		if once == nil || regular != nil && regular.Value.(*Record).At.After(once.Value.(*Record).At) {
			next = &regular
		}
		listed = append(listed, (*next).Value.(*Record).stranger())
		*next = (*next).Next()
	}
	return listed, len(s.byThumbprint) - number
}
