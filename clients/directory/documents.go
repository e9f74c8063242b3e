package directory

import (
	"context"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	// maxCertificateFile is the size of the largest certificate file, in bytes.
	maxCertificateFile = 1 << 20
	// maxLooks is how many files a poll looks at.
	maxLooks = 1000
	// maxFetches is how many JWK Sets are fetched at a time.
	maxFetches = 8
)

// documents are those that the clients of a directory name.
type documents struct {
	config *Config

	// mu guards what follows, and how the documents fare. The set changes only while
	// changing of the directory is held, too
	mu    sync.Mutex
	byKey map[documentKey]*watchedDocument
	// version counts changes of byKey and of the contents in force
	version     int
	files, urls documentList
	// used are the documents of the clients that name any
	used map[*clients.Client][]*watchedDocument
	// fetches bounds those that are under way
	fetches chan struct{}
}

func newDocuments(config *Config) *documents {
	return &documents{
		config: config,
		byKey:  make(map[documentKey]*watchedDocument), used: make(map[*clients.Client][]*watchedDocument),
		fetches: make(chan struct{}, maxFetches),
	}
}

// change notes what a transaction has put in force, and returns the warnings about it.
func (s *documents) change(t *transaction, now time.Time) (warnings []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.used) > 0 {
		for c := range t.removed {
			s.drop(c)
		}
	}
	for c, used := range t.plan.usedBy {
		if _, added := t.added[c]; added {
			s.use(c, used)
		}
	}
	s.version += len(t.documents)
	for _, c := range t.documents {
		c.document.contents, c.document.saved = c.contents, time.Time{}
		c.document.setInForce(now)
		warnings = append(warnings, c.document.warningTexts()...)
	}
	for _, opened := range t.plan.opened {
		warnings = append(warnings, opened.warningTexts()...)
	}
	return warnings
}

// use notes which documents a client names.
func (s *documents) use(c *clients.Client, used []*watchedDocument) {
	if len(used) == 0 {
		return
	}
	s.used[c] = used
	for _, document := range used {
		if s.byKey[document.documentKey] == nil {
			s.byKey[document.documentKey] = document
			s.version++
			s.list(document).add(document)
		}
		document.users[c] = struct{}{}
	}
}

// drop notes that a client is gone, and forgets documents that no other client names.
func (s *documents) drop(c *clients.Client) {
	for _, document := range s.used[c] {
		delete(document.users, c)
		if len(document.users) == 0 && s.byKey[document.documentKey] == document {
			delete(s.byKey, document.documentKey)
			s.version++
			s.list(document).remove(document)
		}
	}
	delete(s.used, c)
}

func (s *documents) list(document *watchedDocument) *documentList {
	if document.url != nil {
		return &s.urls
	}
	return &s.files
}

// handOver has a document of another directory begin with what has been fetched of the
// same URL, and reports whether there is anything.
func (s *documents) handOver(document *watchedDocument) bool {
	s.mu.Lock()
	old := s.byKey[document.documentKey]
	s.mu.Unlock()
	if old == nil || !document.url.TakeOver(old.url) {
		return false
	}
	document.contents = &contents{certificates: document.accepted.certificates} // warnings have been reported
	return true
}

// due returns the files whose turn it is to be looked at and, unless they rest, the
// documents behind URLs.
func (s *documents) due(rest bool) []*watchedDocument {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.files.next(maxLooks)
	if !rest {
		list = append(list, s.urls.all...)
	}
	return list
}

// startFetches fetches what is due in the background, a few at a time.
func (s *documents) startFetches(ctx context.Context, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	urls := &s.urls
	for range urls.all {
		before := urls.last
		document := urls.next(1)[0]
		if now.Before(document.url.Due()) {
			continue
		}
		select {
		case s.fetches <- struct{}{}:
		default:
			urls.last = before // it is the first, next time
			return
		}
		go func() {
			document.fetch(ctx)
			<-s.fetches
		}()
	}
}

// noteLook notes the outcome of a look at a document.
func (s *documents) noteLook(document *watchedDocument, changed bool, err error, now time.Time) {
	s.mu.Lock()
	fares := &document.status
	var failing bool // which is to be reported
	if document.url != nil {
		failing = err != nil && (fares.reading == nil || fares.reading.Error() != err.Error())
	} else {
		failing = fares.health.Note(now, changed, err) && err != nil
	}
	if changed && err != nil {
		fares.applying = nil
	}
	mended := false
	if failing || err == nil && !changed {
		mended = fares.noteReading(now, err)
	}
	label := document.label()
	s.mu.Unlock()
	if failing || mended {
		s.config.report(label, document.name, err)
	}
}

// takeUnchanged takes over contents with the certificates that are in force. That
// needs no new clients, whose certificates the server would have to look up again; the
// owner of a JWK Set could cause that all the time.
func (s *documents) takeUnchanged(c documentChange, now time.Time) bool {
	if !sameCertificates(c.document.certificates, c.contents.certificates) {
		return false
	}
	s.mu.Lock()
	reported := sameWarnings(c.document.warnings, c.contents.warnings)
	c.document.contents = c.contents
	c.document.setInForce(now)
	warnings, label := c.document.warningTexts(), c.document.label()
	s.mu.Unlock()
	if !reported {
		s.config.warnAll(warnings)
	}
	s.config.report(label, c.document.name, nil)
	return true
}

// noteFailedChange notes that a change cannot be put in force, and reports it once.
func (s *documents) noteFailedChange(f documentChange) {
	s.mu.Lock()
	fares := &f.document.status
	reported := fares.applying != nil && fares.applying.Error() == f.failure.Error()
	fares.reading, fares.applying = nil, f.failure
	label := f.document.label()
	s.mu.Unlock()
	if !reported {
		s.config.report(label, f.document.name, f.failure)
	}
}

// documentList is documents that are looked at in turn.
type documentList struct {
	all  []*watchedDocument
	last int // which one was the last
}

func (l *documentList) add(document *watchedDocument) {
	document.index = len(l.all)
	l.all = append(l.all, document)
}

func (l *documentList) remove(document *watchedDocument) {
	end := len(l.all) - 1
	l.all[document.index] = l.all[end]
	l.all[document.index].index = document.index
	l.all[end] = nil
	l.all = l.all[:end]
}

// next returns the documents whose turn it is.
func (l *documentList) next(most int) []*watchedDocument {
	list := make([]*watchedDocument, 0, min(most, len(l.all)))
	for range cap(list) {
		l.last = (l.last + 1) % len(l.all)
		list = append(list, l.all[l.last])
	}
	return list
}
