package directory

import "github.com/caddymtls/caddy-mtls-auth/clients"

const (
	// maxCertificateFile is the size of the largest certificate file, in bytes.
	maxCertificateFile = 1 << 20
	// maxLooks is how many files a poll looks at.
	maxLooks = 1000
	// maxFetches is how many JWK Sets are fetched at a time.
	maxFetches = 8
)

// documentSet is the documents that clients name. It changes only while both changing
// and mu of the directory are held.
type documentSet struct {
	byKey map[documentKey]*watchedDocument
	// version counts changes of byKey and of the contents in force
	version     int
	files, urls documentList
	// used are the documents of the clients that name any
	used map[*clients.Client][]*watchedDocument
	// fetches bounds those that are under way
	fetches chan struct{}
}

func newDocumentSet() documentSet {
	return documentSet{
		byKey: make(map[documentKey]*watchedDocument), used: make(map[*clients.Client][]*watchedDocument),
		fetches: make(chan struct{}, maxFetches),
	}
}

// use notes which documents a client names.
func (s *documentSet) use(c *clients.Client, used []*watchedDocument) {
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
func (s *documentSet) drop(c *clients.Client) {
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

func (s *documentSet) list(document *watchedDocument) *documentList {
	if document.url != nil {
		return &s.urls
	}
	return &s.files
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
