package clients

import (
	"context"
	"time"
)

const (
	// maxCertificateFile is the size of the largest certificate file, in bytes.
	maxCertificateFile = 1 << 20
	// maxLooks is how many files a poll looks at.
	maxLooks = 1000
	// maxFetches is how many JWK Sets are fetched at a time.
	maxFetches = 8
)

// documentSet is the documents that clients name.
type documentSet struct {
	byKey       map[documentKey]*watchedDocument
	files, urls []*watchedDocument
	// the file and the URL that a poll has come to
	lastFile, lastURL int
	// fetches bounds those that are under way
	fetches chan struct{}
}

// keepUsed keeps the documents that clients name, notes who these are, and forgets
// all others.
func (s *documentSet) keepUsed(sources []*recordSource) {
	for _, document := range s.byKey {
		document.users = nil
	}
	s.byKey, s.files, s.urls = make(map[documentKey]*watchedDocument), nil, nil
	for _, from := range sources {
		for _, e := range from.entries {
			for _, document := range e.documents {
				document.users = append(document.users, e.client.ID)
				if s.byKey[document.documentKey] != nil {
					continue
				}
				s.byKey[document.documentKey] = document
				if document.url != nil {
					s.urls = append(s.urls, document)
				} else {
					s.files = append(s.files, document)
				}
			}
		}
	}
}

// startFetches fetches what is due in the background, a few at a time.
func (s *documentSet) startFetches(ctx context.Context, now time.Time) {
	for range s.urls {
		s.lastURL = (s.lastURL + 1) % len(s.urls)
		document := s.urls[s.lastURL]
		if now.Before(document.url.Due()) {
			continue
		}
		select {
		case s.fetches <- struct{}{}:
		default:
			s.lastURL += len(s.urls) - 1 // it is the first, next time
			return
		}
		go func() {
			document.fetch(ctx)
			<-s.fetches
		}()
	}
}
