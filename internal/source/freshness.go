package source

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// freshness returns how long a response may still be kept, and whether its header
// says so: max-age of Cache-Control minus Age (RFC 9111 §4.2.1). It is zero, and
// never negative, for no-store, no-cache and invalid values.
func freshness(header http.Header) (fresh time.Duration, said bool) {
	for _, line := range header["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return 0, true
			case "max-age":
				age := seconds(strings.Trim(value, `"`))
				if !said || age < fresh {
					fresh = age
				}
				said = true
			}
		}
	}
	return max(0, fresh-seconds(header.Get("Age"))), said
}

// seconds parses delta-seconds (RFC 9111 §1.2.2). Anything but a number is zero, and
// a number that is too large is 2^31 - 1.
func seconds(text string) time.Duration {
	n, _ := strconv.ParseUint(text, 10, 31)
	return time.Duration(n) * time.Second
}
