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
	name string          // the path, or the URL as [source.ShownURL] shows it
	file *source.Watched // nil for a URL
	url  *source.URL     // nil for a file

	// content is what was loaded last without an error, current the CRLs in force
	// of what was loaded last.
	content []byte
	current []*parsedCRL
	// verified are CRLs whose signatures have been verified, the newest for each key
	// and scope. unverified are the others that were loaded last, and for each of
	// them one that is newer and the one that was loaded first.
	verified, unverified []*parsedCRL

	// reported is what has been reported about the CRLs in force.
	reported map[*parsedCRL]*crlReport
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
			return nextFetch(l.current, s.config.Now())
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

// add takes in the CRLs of a document, and returns those that are gone from it, and
// whether what is in force has changed. whole says that they are all that the document
// has. A CRL whose signature has not been verified is kept alongside the others, because
// it may be forged.
func (l *crlLocation) add(document []*parsedCRL, whole bool) (gone []*parsedCRL, changed bool, err error) {
	before, provided := l.inForce(), l.current
	l.promoteVerified()
	old := l.unverified
	l.current, l.unverified = nil, nil
	for _, crl := range document {
		newest, e := l.addVerified(crl)
		if newest == nil {
			newest, e = l.addUnverified(crl, old)
		}
		if e != nil {
			err = e
		}
		l.current = append(l.current, newest)
	}
	if !whole { // what cannot be read replaces nothing
		for _, crl := range old {
			if !slices.ContainsFunc(l.unverified, func(other *parsedCRL) bool { return other.isOf(crl) }) {
				l.unverified, l.current = append(l.unverified, crl), append(l.current, crl)
			}
		}
		for _, crl := range provided {
			if slices.Contains(l.verified, crl) && !slices.Contains(l.current, crl) {
				l.current = append(l.current, crl)
			}
		}
	} else {
		gone = l.markGone(provided)
		l.dropOldest(maxCRLs, maxCRLSize)
	}
	now := l.inForce()
	changed = len(before) != len(now) || slices.ContainsFunc(now, func(crl *parsedCRL) bool { return !slices.Contains(before, crl) })
	return gone, changed, err
}

// markGone marks the CRLs in force that the location does not provide, and returns those
// of what it provided before that nothing has replaced. A delta CRL comes to its end
// without a successor.
func (l *crlLocation) markGone(provided []*parsedCRL) (gone []*parsedCRL) {
	for _, crl := range l.inForce() {
		crl.gone.Store(!slices.Contains(l.current, crl))
	}
	for _, old := range provided {
		replaces := func(crl *parsedCRL) bool {
			ca := old.signer.Load()
			return crl == old || crl.isOf(old) && (ca == nil || crl.checkSignedBy(ca) == nil)
		}
		if old.scope.base == nil && !slices.ContainsFunc(l.current, replaces) {
			gone = append(gone, old)
		}
	}
	return gone
}

// inForce returns all CRLs that count.
func (l *crlLocation) inForce() []*parsedCRL { return slices.Concat(l.verified, l.unverified) }

// addVerified lets a CRL replace those that are signed with the same key, and returns
// the one in force then, nil if there is none to replace. The error says why the CRL
// is not the one in force.
func (l *crlLocation) addVerified(crl *parsedCRL) (inForce *parsedCRL, err error) {
	replaces := func(old *parsedCRL) bool { return crl.isOf(old) && crl.checkSignedBy(old.signer.Load()) == nil }
	for _, old := range l.verified {
		switch {
		case !replaces(old):
			continue
		case bytes.Equal(crl.list.Raw, old.list.Raw):
			return old, nil
		}
		if err := crl.checkReplaces(old); err != nil {
			return old, err
		}
		inForce = crl
	}
	if inForce != nil {
		l.verified = append(slices.DeleteFunc(l.verified, replaces), crl)
	}
	return inForce, nil
}

// addUnverified keeps a CRL, and of the old ones that it would replace, one that is
// newer, which it returns, and the first, which a forgery that comes later is not to
// displace.
func (l *crlLocation) addUnverified(crl *parsedCRL, old []*parsedCRL) (newest *parsedCRL, err error) {
	newest = crl
	var first *parsedCRL
	for _, other := range old {
		if bytes.Equal(other.list.Raw, crl.list.Raw) {
			crl = other
		}
		if !crl.isOf(other) {
			continue
		}
		if first == nil {
			first = other
		}
		if e := newest.checkReplaces(other); e != nil {
			newest, err = other, e
		} else if bytes.Equal(newest.list.Raw, other.list.Raw) {
			newest = other
		}
	}
	for _, kept := range []*parsedCRL{first, newest, crl} {
		if kept != nil && !slices.Contains(l.unverified, kept) {
			l.unverified = append(l.unverified, kept)
		}
	}
	return newest, err
}

// promoteVerified moves the CRLs whose signatures have been verified since they
// were loaded to the verified ones, of which the newest for each key remains.
func (l *crlLocation) promoteVerified() {
	l.unverified = slices.DeleteFunc(l.unverified, func(crl *parsedCRL) bool {
		if crl.signer.Load() == nil {
			return false
		}
		if inForce, _ := l.addVerified(crl); inForce == nil {
			l.verified = append(l.verified, crl)
		}
		return true
	})
}

// dropOldest drops the oldest of the verified CRLs that the location no longer provides,
// so that there are at most so many, with at most so many bytes. A CA may give each CRL
// another scope, so that none replaces another.
func (l *crlLocation) dropOldest(most, mostBytes int) {
	isLeft := func(crl *parsedCRL) bool { return !slices.Contains(l.current, crl) }
	var left []*parsedCRL
	size := 0
	for _, crl := range l.verified {
		if isLeft(crl) {
			left, size = append(left, crl), size+len(crl.list.Raw)
		}
	}
	slices.SortStableFunc(left, func(a, b *parsedCRL) int { return a.list.ThisUpdate.Compare(b.list.ThisUpdate) })
	drop := 0
	for ; len(left)-drop > most || size > mostBytes; drop++ {
		size -= len(left[drop].list.Raw)
	}
	l.verified = slices.DeleteFunc(l.verified, func(crl *parsedCRL) bool { return slices.Contains(left[:drop], crl) })
}

// nextUpdate returns when the first of some CRLs is no longer fresh, zero without any.
func nextUpdate(crls []*parsedCRL) (first time.Time) {
	for _, crl := range crls {
		if end := crl.list.NextUpdate; !end.IsZero() && (first.IsZero() || end.Before(first)) {
			first = end
		}
	}
	return first
}

// nextFetch returns when the first of some CRLs that are fresh no longer is; a distant
// time if none has a nextUpdate, and now if all are stale.
func nextFetch(crls []*parsedCRL, now time.Time) time.Time {
	fresh := slices.DeleteFunc(slices.Clone(crls), func(crl *parsedCRL) bool { return !now.Before(crl.list.NextUpdate) })
	switch {
	case len(fresh) > 0:
		return nextUpdate(fresh)
	case nextUpdate(crls).IsZero():
		return now.AddDate(1, 0, 0)
	}
	return now
}

// tried reports whether the location has been read or fetched at all.
func (l *crlLocation) tried() bool {
	return l.file != nil || !l.url.Success().IsZero() || l.url.Failure() != nil
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
	l.current, l.content = slices.Clone(old.current), old.content
	oldMu.Unlock()
	if l.url != nil {
		l.url.TakeOver(old.url)
	}
}
