package headerguard

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// OtherGateways are the headers in which other gateways send an upstream the
// identity of a client. A trailing * stands for any ending.
var OtherGateways = []string{
	"Client-Cert", "Client-Cert-Chain",
	"X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert*",
	"X-Ssl-*", "Ssl-Client-*", "X-Client-Cert*", "X-Client-Dn", "X-Client-S-Dn", "X-Client-I-Dn", "X-Client-Verify",
	"X-Amzn-Mtls-*", "Cf-Client-Cert*", "Cf-Cert-*", "X-Arr-Clientcert", "X-Consumer-*",
}

// certificateHeaders are the headers in which proxies usually forward certificates,
// in the form of the keys of http.Header.
var certificateHeaders = []string{
	"Client-Cert", "X-Ssl-Client-Cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Client-Cert",
	"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "X-Arr-Clientcert", "Cf-Client-Cert-Der-Base64",
}

// CertificateHeader returns the first header in which proxies usually forward
// certificates that is there and not blank, or "".
func CertificateHeader(header http.Header) string {
	for _, name := range certificateHeaders {
		if HasValue(header[name]) {
			return name
		}
	}
	return ""
}

// HasValue reports whether any of the values is not blank.
func HasValue(values []string) bool {
	return slices.ContainsFunc(values, func(value string) bool { return strings.TrimSpace(value) != "" })
}

// maxName is the longest header name that can be configured, in octets, and how
// much of a received one is compared.
const maxName = 128

// Names is a set of header names. Names are compared without regard to case, and
// every character that is not a letter or digit counts as a hyphen, because many
// upstream servers see no difference.
type Names struct {
	exact    map[string]struct{}
	prefixes []string
	first    [256]bool // first letters of all names, to pass most others quickly
}

// NewNames returns the set of these names; a trailing * stands for any ending.
func NewNames(names ...string) *Names {
	set := &Names{exact: make(map[string]struct{}, len(names))}
	for _, name := range names {
		name, isPrefix := strings.CutSuffix(name, "*")
		folded := string(fold(nil, name))
		if folded == "" {
			continue
		}
		set.first[folded[0]] = true
		if isPrefix {
			set.prefixes = append(set.prefixes, folded)
		} else {
			set.exact[folded] = struct{}{}
		}
	}
	return set
}

func fold(dst []byte, name string) []byte {
	for i := range min(len(name), maxName) {
		dst = append(dst, foldByte(name[i]))
	}
	return dst
}

func foldByte(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return c
	}
	return '-'
}

// Contains reports whether the set has the name. A nil set is empty.
func (set *Names) Contains(name string) bool {
	if set == nil || name == "" || !set.first[foldByte(name[0])] {
		return false
	}
	var buffer [maxName]byte
	folded := fold(buffer[:0], name)
	if _, ok := set.exact[string(folded)]; ok && len(name) <= maxName {
		return true
	}
	for _, prefix := range set.prefixes {
		if len(folded) >= len(prefix) && string(folded[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}

// connectionHeaders belong to one hop or to the framing of the message, so they
// cannot carry an identity. All headers that reverse_proxy removes are among
// them.
var connectionHeaders = NewNames(
	"Alt-Svc", "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
)

// proxyHeaders are the headers that reverse_proxy sets after our directives.
var proxyHeaders = NewNames("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")

// CheckName returns why an identity cannot be sent in the header, or nil.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the header name is empty")
	case len(name) > maxName:
		return fmt.Errorf("header name %.40q… is longer than %d characters", name, maxName)
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is not a header name; use letters, digits and hyphens", name)
	case connectionHeaders.Contains(name):
		return fmt.Errorf("header '%s' belongs to the connection; choose another name", name)
	case proxyHeaders.Contains(name):
		return fmt.Errorf("reverse_proxy overwrites header '%s'; choose another name", name)
	}
	return nil
}

// CheckKept returns why a directive that sets the headers in set cannot exempt
// name, or nil.
func CheckKept(name string, set []string) error {
	beginning := strings.TrimSuffix(name, "*")
	if err := CheckName(beginning); err != nil {
		return err
	}
	if strings.Contains(beginning, "*") {
		return fmt.Errorf("header '%s' has a * that is not at the end; write out the names", name)
	}
	kept := NewNames(name)
	if i := slices.IndexFunc(set, kept.Contains); i >= 0 {
		return fmt.Errorf("header '%s' is set by this directive, so the caller's value cannot be kept; remove one of the two", set[i])
	}
	return nil
}
