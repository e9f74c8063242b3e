package directory

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// watchedDocument is a certificate file, or a JWK Set in a file or behind a URL,
// that clients name.
type watchedDocument struct {
	documentKey
	name   string       // the place without a password
	file   *source.File // nil for a URL
	broken error        // why the content that was read last from the file cannot be parsed
	url    *source.URL  // nil for a file

	*contents // in force
	status

	// users are the clients that name it, and index its place in a documentList
	users map[*clients.Client]struct{}
	index int
	// saved is when the JWK Set was fetched that storage has a copy of, zero if
	// that is not the one in force. mu of the documents guards it
	saved time.Time

	mu       sync.Mutex // guards what a fetch leaves
	fetching bool       // what is accepted is from its server, and not taken over
	accepted *contents  // what was parsed last
	fetched  *contents  // what the next look returns
}

// contents are the certificates of a document.
type contents struct {
	certificates []*x509.Certificate
	// warnings are about other keys of a JWK Set
	warnings []string
}

type documentKey struct {
	kind  clients.Kind // KindCertificate or KindJWKS
	place string
	isURL bool
}

func (k documentKey) parse(content []byte) (*contents, error) {
	if k.kind == clients.KindJWKS {
		certificates, warnings, err := clients.ParseKeySet(content)
		if err != nil {
			return nil, err
		}
		return &contents{certificates: certificates, warnings: warnings}, nil
	}
	certificate, err := clients.ParseCertificate(content)
	if err != nil {
		return nil, err
	}
	return &contents{certificates: []*x509.Certificate{certificate}}, nil
}

// look returns the content of the document if it has changed since the last look.
// The error is returned by each look until the document is mended.
func (d *watchedDocument) look(now time.Time) (parsed *contents, changed bool, err error) {
	if d.url == nil {
		content, changed, err := d.file.Look(now)
		if err != nil {
			return nil, false, err
		}
		if changed {
			parsed, d.broken = d.parse(content)
		}
		return parsed, changed, d.broken
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if parsed, d.fetched = d.fetched, nil; parsed != nil {
		return parsed, true, nil
	}
	return nil, false, d.url.Failure()
}

// fetch fetches the document. The next look returns the outcome.
func (d *watchedDocument) fetch(ctx context.Context) {
	d.mu.Lock()
	d.fetching = true
	d.mu.Unlock()
	if _, changed, _ := d.url.Refresh(ctx); changed {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fetched = d.accepted
	}
}

// accept parses what was fetched, or taken over. It is called when the content has
// changed. Whoever names a JWK Set may be its server as well, and name a million, so that
// memory may not do for all of them.
func (d *watchedDocument) accept(content []byte) error {
	parsed, err := d.parse(content)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fetching && (d.accepted == nil || len(parsed.certificates) > len(d.accepted.certificates)) {
		if err := checkMemory(); err != nil {
			return err
		}
	}
	d.accepted = parsed
	return nil
}

// warningTexts returns the warnings with the names of the clients and the document.
func (d *watchedDocument) warningTexts() []string {
	list := make([]string, len(d.warnings))
	for i, warning := range d.warnings {
		list[i] = fmt.Sprintf("%s: %s '%s': %s", d.userText(), d.kind, d.name, warning)
	}
	return list
}

// userIDs returns the identifiers of the clients that name the document, sorted.
func (d *watchedDocument) userIDs() []string {
	ids := make([]string, 0, len(d.users))
	for user := range d.users {
		ids = append(ids, user.ID)
	}
	slices.Sort(ids)
	return ids
}

// userText names the first clients that name the document.
func (d *watchedDocument) userText() string {
	const most = 3
	ids := d.userIDs()
	switch {
	case len(ids) == 0: // it is about to be
		return "client"
	case len(ids) == 1:
		return "client '" + ids[0] + "'"
	}
	text := "clients '" + strings.Join(ids[:min(len(ids), most)], "', '") + "'"
	if more := len(ids) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// sameWarnings reports whether warnings are the same, in any order: a server may list
// the same keys in another order each time.
func sameWarnings(a, b []string) bool {
	withoutNumbers := func(list []string) []string {
		texts := make([]string, len(list))
		for i, text := range list {
			texts[i] = strings.TrimLeft(strings.TrimPrefix(text, "key "), "0123456789")
		}
		slices.Sort(texts)
		return texts
	}
	return slices.Equal(withoutNumbers(a), withoutNumbers(b))
}

// sameCertificates reports whether two documents have the same certificates, in
// any order.
func sameCertificates(a, b []*x509.Certificate) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(one *x509.Certificate) bool {
		return !slices.ContainsFunc(b, one.Equal)
	})
}
