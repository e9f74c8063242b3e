package revocation

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// crlLocation is a file or a URL, and the CRLs that it has provided.
type crlLocation struct {
	name string          // the path, or the URL without a password
	file *source.Watched // nil for a URL
	url  *source.URL     // nil for a file

	// content is what was loaded last without an error, last the CRL that was.
	content []byte
	last    *parsedCRL
	// verified are CRLs whose signatures have been verified, the newest for
	// each key. unverified are up to two others: the newest, if it is not the
	// last one loaded, and the last.
	verified, unverified []*parsedCRL

	// stale and foreign are the CRLs that were last reported, examined the CRL that
	// was last compared with the CAs.
	stale, foreign, examined *parsedCRL
}

// newLocation returns the location of a CRL, which has not been loaded yet.
func (s *CRLSource) newLocation(address string) (*crlLocation, error) {
	if address == "" {
		return nil, errors.New("the file or URL of a CRL is empty")
	}
	l := &crlLocation{name: address}
	load := func(content []byte) error { return s.load(l, content) }
	if !strings.Contains(address, "://") {
		l.file = source.NewWatched(address, maxCRLSize, load)
		return l, nil
	}
	var err error
	l.url, err = source.NewURL(source.URLConfig{
		Address:    address,
		AllowHTTP:  true,
		MaxBytes:   maxCRLSize,
		Refresh:    s.config.Refresh,
		MinRefresh: min(minCRLRefresh, s.config.Refresh),
		MaxRefresh: s.config.Refresh,
		MaxRetry:   minCRLRefresh,
		Timeout:    crlFetchTimeout,
		Now:        s.config.Now,
		Jitter:     s.config.Jitter,
		Accept:     load,
		Expires: func() time.Time {
			s.mu.Lock()
			defer s.mu.Unlock()
			return l.last.list.NextUpdate
		},
		Fetch: func(ctx context.Context, address string, _ int64) (source.Document, error) {
			content, err := s.config.Fetch(ctx, address)
			return source.Document{Content: content}, err
		},
	})
	if err != nil {
		return nil, err
	}
	l.name = l.url.Name()
	return l, nil
}

// add takes a CRL in, and reports whether what is in force has changed. A CRL
// whose signature has not been verified is kept alongside the others, because
// it may be forged.
func (l *crlLocation) add(crl *parsedCRL) (changed bool, err error) {
	l.promoteVerified()
	for i, old := range l.verified {
		if crl.checkSignedBy(old.signer.Load()) != nil {
			continue
		}
		if err := crl.checkReplaces(old); err != nil {
			changed = l.last != old
			l.last = old
			return changed, err
		}
		changed = len(l.unverified) > 0
		if !bytes.Equal(crl.list.Raw, old.list.Raw) {
			l.verified[i], changed = crl, true
		}
		l.last, l.unverified = l.verified[i], nil
		return changed, nil
	}
	newest := crl
	for _, other := range l.unverified {
		if bytes.Equal(other.list.Raw, crl.list.Raw) {
			crl = other
		}
		if !bytes.Equal(other.list.RawIssuer, crl.list.RawIssuer) {
			continue
		}
		if e := newest.checkReplaces(other); e != nil {
			newest, err = other, e
		}
	}
	changed = l.last != crl
	l.last, l.unverified = crl, []*parsedCRL{crl}
	if err != nil {
		l.unverified = []*parsedCRL{newest, crl}
	}
	return changed, err
}

// promoteVerified moves the CRLs whose signatures have been verified since they
// were loaded to the verified ones, of which the newest for each key remains.
func (l *crlLocation) promoteVerified() {
	l.unverified = slices.DeleteFunc(l.unverified, func(crl *parsedCRL) bool {
		if crl.signer.Load() == nil {
			return false
		}
		for i, old := range l.verified {
			if crl.checkSignedBy(old.signer.Load()) == nil {
				if crl.checkReplaces(old) == nil {
					l.verified[i] = crl
				}
				return true
			}
		}
		l.verified = append(l.verified, crl)
		return true
	})
}

// current returns the CRL in force of the issuer that was loaded last, or nil.
func (l *crlLocation) current() *parsedCRL {
	if len(l.unverified) > 0 {
		return l.unverified[0]
	}
	return l.last
}

// health is how a [source.Watched] or a [source.URL] fares.
type health interface {
	Success() time.Time
	Failure() error
}

func (l *crlLocation) health() health {
	if l.url != nil {
		return l.url
	}
	return l.file
}

// takeOver copies what the same location of an older source has; oldMu guards
// the CRLs of the latter. It is as new as what is taken over of the file, and
// not newer than what is taken over of the URL.
func (l *crlLocation) takeOver(old *crlLocation, oldMu *sync.Mutex) {
	if l.file != nil {
		l.file.TakeOver(old.file)
	}
	oldMu.Lock()
	old.promoteVerified()
	l.verified, l.unverified = slices.Clone(old.verified), slices.Clone(old.unverified)
	l.last, l.content = old.last, old.content
	oldMu.Unlock()
	if l.url != nil {
		l.url.TakeOver(old.url)
	}
}
