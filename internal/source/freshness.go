package source

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxFreshness is the longest time that a server can claim (RFC 9111 §1.2.2).
const maxFreshness = (1 << 31) * time.Second

// Freshness returns how long a response may still be kept, and whether its header
// says so (RFC 9111 §4.2): max-age of Cache-Control minus Age, or else Expires minus
// Date. It is zero, and never negative, for no-store, no-cache and invalid values.
func Freshness(header http.Header) (fresh time.Duration, said bool) {
	var expires, date time.Time
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
	if said {
		return max(0, fresh-seconds(header.Get("Age"))), true
	}
	text := header.Get("Expires")
	if text == "" {
		return 0, false
	}
	var err error
	if expires, err = http.ParseTime(text); err != nil {
		return 0, true
	}
	if date, err = http.ParseTime(header.Get("Date")); err != nil {
		return 0, true
	}
	return min(max(0, expires.Sub(date)-seconds(header.Get("Age"))), maxFreshness), true
}

// seconds parses delta-seconds. Anything but a number is zero.
func seconds(text string) time.Duration {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return maxFreshness
	}
	return time.Duration(n) * time.Second
}
