package source

import (
	"net/url"
	"regexp"
	"strings"
)

// maxURLText bounds a URL in a log line or an error, in bytes.
const maxURLText = 200

// ShownURL returns an address as logs, errors, metrics and the admin API show it:
// without user name and password, and without the values in its query, any of which
// may be a secret. Everything that shows an address shows this. Nobody can tell where
// the password of an invalid URL is, so it is not shown at all.
func ShownURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an invalid URL"
	}
	return shown(u)
}

// ShownValue returns a value of the configuration, which may be an address, for an
// error.
func ShownValue(value string) string {
	if _, err := url.Parse(value); err != nil && strings.HasPrefix(strings.ToLower(value), "http") {
		return "an invalid URL"
	}
	address, query, hasQuery := strings.Cut(value, "?")
	if hasQuery && strings.Contains(address, "://") {
		return WithoutPasswords(address) + "?" + withoutValues(query)
	}
	return WithoutPasswords(value)
}

func shown(u *url.URL) string {
	bare := *u
	bare.User, bare.Fragment, bare.RawFragment = nil, "", ""
	bare.RawQuery = withoutValues(u.RawQuery)
	text := bare.String()
	if at := strings.LastIndexByte(text, '@'); at >= 0 { // a password in the wrong place
		text = "…" + text[at:]
	}
	return Text(text, maxURLText)
}

// withoutValues returns a query with the names of its parameters alone.
func withoutValues(query string) string {
	if query == "" {
		return ""
	}
	parameters := strings.Split(query, "&")
	for i, parameter := range parameters {
		name, _, named := strings.Cut(parameter, "=")
		if !named {
			name = "" // it may be a secret as a whole
		}
		parameters[i] = name + "=…"
	}
	return strings.Join(parameters, "&")
}

// passwords matches a user name and a password in a URL within a text.
var passwords = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'"]*@`)

// WithoutPasswords removes user names and passwords from the URLs in a text.
func WithoutPasswords(text string) string { return passwords.ReplaceAllString(text, "$1") }
