package clients

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"
)

// listing is a certificate that the JWKS of a client lists.
type listing struct {
	// certificate is nil while the client's JWKS is not known: then the
	// certificate does not count, but is nobody else's either
	certificate *x509.Certificate
	sum         [sha256.Size]byte
	// since is when it was first seen there, zero where that is not known
	since time.Time
}

func listings(certificates []*x509.Certificate) []listing {
	list := make([]listing, len(certificates))
	for i, certificate := range certificates {
		list[i] = listing{certificate: certificate, sum: sha256.Sum256(certificate.Raw)}
	}
	return list
}

// dated tells since when certificates are listed, by what was known before.
// Without a JWKS, those of before stay, and do not count.
func dated(list, before []listing, now time.Time) []listing {
	if list == nil {
		list = slices.Clone(before)
		for i := range list {
			list[i].certificate = nil
		}
		return list
	}
	since := make(map[[sha256.Size]byte]time.Time, len(before))
	for _, l := range before {
		since[l.sum] = l.since
	}
	for i := range list {
		var known bool
		if list[i].since, known = since[list[i].sum]; !known {
			list[i].since = now
		}
	}
	return list
}

// sameListings reports whether two lists have the same certificates since the
// same time.
func sameListings(a, b []listing) bool {
	if len(a) != len(b) {
		return false
	}
	since := make(map[[sha256.Size]byte]time.Time, len(b))
	for _, l := range b {
		since[l.sum] = l.since
	}
	return !slices.ContainsFunc(a, func(l listing) bool {
		before, known := since[l.sum]
		return !known || !before.Equal(l.since)
	})
}
