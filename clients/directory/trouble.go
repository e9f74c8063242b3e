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

// Troubles says which certificate files and JWK Sets cannot be read now, or were never
// read, whose they are, and why: their certificates may be unknown. It names 100 at
// most.
func (d *Directory) Troubles() (texts []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, document := range slices.Concat(d.documents.urls.all, d.documents.files.all) {
		if text := document.trouble(); text != "" && len(texts) < maxTroubles {
			texts = append(texts, text)
		}
	}
	return texts
}

// trouble says why the document cannot be read, "" if it could be. It is guarded by the
// directory's mu.
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
