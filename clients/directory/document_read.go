package directory

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxTroubles is how many documents are named that cannot be read.
	maxTroubles = 100
	// maxTroubleText bounds why a document cannot be read, in bytes.
	maxTroubleText = 160
)

// troubles says which documents cannot be read now, or were never read.
func (s *documents) troubles() (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, document := range slices.Concat(s.urls.all, s.files.all) {
		if text := document.trouble(); text != "" && len(texts) < maxTroubles {
			texts = append(texts, text)
		}
	}
	return texts
}

// trouble says why the document cannot be read, "" if it could be. It is guarded by mu
// of the documents.
func (d *watchedDocument) trouble() string {
	what := "the certificate file"
	if d.kind == clients.KindJWKS {
		what = "the JWKS"
	}
	what = fmt.Sprintf("%s '%s' of %s", what, d.name, d.userText())
	err, success, known := cmp.Or(d.reading, d.applying), d.success, true
	if d.url != nil {
		if _, known = d.url.Content(); err == nil {
			err = d.url.Failure()
		}
		success = d.url.Success()
	}
	switch {
	case !known && err == nil:
		return what + " has not been fetched yet"
	case !known:
		return what + " was never read: " + source.Text(err.Error(), maxTroubleText)
	case err != nil:
		return fmt.Sprintf("%s is that of %s, because it cannot be read: %s", what, success.UTC().Format(time.RFC3339), source.Text(err.Error(), maxTroubleText))
	}
	return ""
}

// unfetched returns how many JWK Sets have never been fetched.
func (s *documents) unfetched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for _, document := range s.urls.all {
		if _, known := document.url.Content(); !known {
			count++
		}
	}
	return count
}

// states returns the states of the documents, at most limit.
func (s *documents) states(limit int) (states []SourceState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, document := range slices.Concat(s.files.all, s.urls.all) {
		state := SourceState{Refresh: source.LookInterval}
		if document.url != nil {
			state.Refresh = document.url.Interval()
			if document.url.Begun() {
				state.Copy, state.CopyTime = CopyStorage, document.url.Success()
			}
			// a fetch may succeed though its result cannot be put in force
			document.success = document.url.Success()
		}
		state.Success, state.Failure = document.success, document.failure()
		for _, label := range document.labels() {
			if len(states) == limit {
				return states
			}
			state.Source = label
			states = append(states, state)
		}
	}
	return states
}

// maxFilesRead is how many certificate files [Directory.CertificateFiles] looks at.
const maxFilesRead = 10_000

// certificateFiles returns the certificates in files that expire within a time, soonest
// first, at most limit, and how many more there are. It looks at 10,000 files.
func (s *documents) certificateFiles(from, until time.Time, limit int) (list []CertificateFile, more int) {
	s.mu.Lock()
	for _, document := range s.files.all[:min(len(s.files.all), maxFilesRead)] {
		if document.kind != clients.KindCertificate || document.contents == nil {
			continue
		}
		certificate := document.certificates[0]
		if certificate.NotAfter.Before(from) || certificate.NotAfter.After(until) {
			continue
		}
		for _, id := range document.userIDs() {
			list = append(list, CertificateFile{id, certificate})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b CertificateFile) int {
		return cmp.Or(a.Certificate.NotAfter.Compare(b.Certificate.NotAfter), cmp.Compare(a.ClientID, b.ClientID))
	})
	more = max(len(list)-limit, 0)
	return list[:len(list)-more], more
}
