package refusals

import (
	"fmt"
	"net/url"
	"strconv"
	"time"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// ParseQuery reads the query of a request for refusals. Times in it that are a duration
// count back from now. It refuses what it does not know, because a misspelt filter must not
// list everything.
func ParseQuery(raw string, now time.Time) (realm string, q Query, err error) {
	q.Limit = defaultLimit
	err = eachParameter(raw, func(name, value string) (err error) {
		switch name {
		case "realm":
			realm = value
		case "client_id":
			q.ClientID = value
		case "reason":
			q.Reason = value
		case "since":
			q.Since, err = parseSince(value, now)
		case "limit":
			q.Limit, err = parseLimit(value)
		default:
			return fmt.Errorf("unknown parameter %.100q; known are realm, client_id, reason, since and limit", name)
		}
		return err
	})
	return realm, q, err
}

// ParseLimit reads the query of a request for strangers.
func ParseLimit(raw string) (limit int, err error) {
	limit = defaultLimit
	err = eachParameter(raw, func(name, value string) (err error) {
		if name != "limit" {
			return fmt.Errorf("unknown parameter %.100q; the only one is limit", name)
		}
		limit, err = parseLimit(value)
		return err
	})
	return limit, err
}

// eachParameter reads a query in which each parameter has one value.
func eachParameter(raw string, use func(name, value string) error) error {
	parameters, err := url.ParseQuery(raw)
	if err != nil {
		return fmt.Errorf("the query cannot be read: %w", err)
	}
	for name, values := range parameters {
		switch {
		case len(values) > 1:
			return fmt.Errorf("parameter %.100q appears %d times; name it once", name, len(values))
		case values[0] == "":
			return fmt.Errorf("parameter %.100q is empty; give it a value or leave it out", name)
		}
		if err := use(name, values[0]); err != nil {
			return err
		}
	}
	return nil
}

func parseSince(value string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, value); err == nil {
		return at, nil
	}
	if ago, err := time.ParseDuration(value); err == nil && ago > 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("since is %.100q; use a time such as 2026-01-02T15:04:05Z, or a duration such as 1h", value)
}

func parseLimit(value string) (int, error) {
	limit, err := strconv.Atoi(value)
	if err != nil || limit < 1 || limit > maxLimit {
		return 0, fmt.Errorf("limit is %.100q; use a number from 1 to %d", value, maxLimit)
	}
	return limit, nil
}
