package clientsapi

import (
	"net/http"
	"strings"
)

const (
	ifMatch     = "If-Match"
	ifNoneMatch = "If-None-Match"
)

// checkPreconditions returns why a change must not be made to the record with that
// ETag, which is "" if there is none (RFC 9110 §13).
func checkPreconditions(header http.Header, etag string) error {
	if matches, given, err := matchesAny(header, ifMatch, etag, false); err != nil {
		return err
	} else if given && !matches {
		if etag == "" {
			return apiError(http.StatusPreconditionFailed, "the client does not exist, so it has not the ETag in If-Match; to create it, leave If-Match out")
		}
		return apiError(http.StatusPreconditionFailed, "the client has changed since it was read; read it again, and decide by what it is now")
	}
	if matches, _, err := matchesAny(header, ifNoneMatch, etag, true); err != nil {
		return err
	} else if matches {
		return apiError(http.StatusPreconditionFailed, "the client exists; to replace it, send its ETag in If-Match")
	}
	return nil
}

// matchesNone reports whether If-None-Match of a GET says that the caller has this
// record already.
func matchesNone(header http.Header, etag string) (bool, error) {
	matches, _, err := matchesAny(header, ifNoneMatch, etag, true)
	return matches, err
}

// matchesAny reports whether a header is given, and whether it lists the ETag. A "*"
// stands for any record. The comparison is weak for If-None-Match (RFC 9110 §8.8.3.2).
func matchesAny(header http.Header, name, etag string, weak bool) (matches, given bool, err error) {
	values := header.Values(name)
	if len(values) == 0 {
		return false, false, nil
	}
	rest := strings.Trim(strings.Join(values, ","), " \t")
	if rest == "*" {
		return etag != "", true, nil
	}
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			return matches, true, nil
		}
		opaque, isWeak := strings.CutPrefix(rest, "W/")
		end := -1
		if strings.HasPrefix(opaque, `"`) {
			end = strings.IndexByte(opaque[1:], '"') + 1
		}
		if end < 1 {
			return false, true, apiError(http.StatusBadRequest, `%s is %.100q; send ETags in double quotes as they are in answers, or *`, name, strings.Join(values, ","))
		}
		if opaque[:end+1] == etag && (weak || !isWeak) {
			matches = true
		}
		if rest = strings.TrimLeft(opaque[end+1:], " \t"); rest != "" && rest[0] != ',' {
			return false, true, apiError(http.StatusBadRequest, "%s is %.100q; separate ETags with commas", name, strings.Join(values, ","))
		}
	}
}
