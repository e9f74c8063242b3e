package tokens

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxBody is the largest request body, in bytes.
	maxBody = 64 << 10
	// maxParameters is the largest number of parameters in a request body.
	maxParameters = 64
	// maxBasic is the size of the largest credentials of HTTP Basic, in bytes:
	// enough for any client_id, with every character encoded twice.
	maxBasic = 1 << 10
	// maxContentType is the size of the largest Content-Type, in bytes. It has room
	// for a charset. Parsing a long one takes milliseconds.
	maxContentType = 256

	grantClientCredentials = "client_credentials"
)

// otherAuthentication are the parameters of client authentication methods that
// this server does not support (RFC 6749 §2.3.1, RFC 7521 §4.2). A request
// must not use a second method besides its certificate (RFC 6749 §2.3).
var otherAuthentication = []string{"client_secret", "client_assertion", "client_assertion_type"}

// bodyOnly are the parameters that must not be in a URL, where they would end
// up in access logs (RFC 6749 §2.3.1, §3.2).
var bodyOnly = append([]string{
	"grant_type", "client_id", "scope", "resource", "token", "access_token", "refresh_token",
	"code", "assertion", "username", "password",
}, otherAuthentication...)

// TokenRequest is the content of a token request (RFC 6749 §4.4.2). A
// parameter that is absent or empty is the empty string.
type TokenRequest struct {
	// ClientID is the `client_id`, which a request with a client certificate
	// must carry (RFC 8705 §2).
	ClientID string
	// GrantType is the `grant_type`; see [TokenRequest.CheckGrant].
	GrantType string
	// Scope is the `scope` as sent.
	Scope string
	// Resources are the values of `resource` (RFC 8707 §2).
	Resources []string
}

// CheckGrant returns unsupported_grant_type unless the grant is
// client_credentials. It is not part of [ParseTokenRequest], because only an
// authenticated client learns which grants are supported.
func (req TokenRequest) CheckGrant() *Error {
	switch req.GrantType {
	case grantClientCredentials:
		return nil
	case "":
		return NewError(CodeInvalidRequest, "grant_type is missing")
	}
	return NewError(CodeUnsupportedGrantType, "the only grant_type is "+grantClientCredentials).
		withCause(fmt.Errorf("grant_type %.100q", req.GrantType))
}

// ParseTokenRequest reads a token request: POST, a form body of at most 64 KiB
// and 64 parameters, none of them twice except `resource`, with `client_id`
// and `grant_type`, and without a second client authentication method (RFC
// 6749 §2.3, §3.2). HTTP Basic with an empty password authenticates nobody; its
// user name counts as the `client_id`. The status of the error is 405 for another
// method, 413 for a body that is too large, 401 for HTTP Basic with a password
// (RFC 6749 §5.2), and 400 for everything else. The query string is not read, but
// OAuth parameters in it are an error.
func ParseTokenRequest(r *http.Request) (TokenRequest, *Error) {
	form, err := readClientForm(r)
	if err != nil {
		return TokenRequest{}, err
	}
	req := TokenRequest{
		ClientID:  form.Get("client_id"),
		GrantType: form.Get("grant_type"),
		Scope:     form.Get("scope"),
		Resources: slices.DeleteFunc(form["resource"], func(s string) bool { return s == "" }),
	}
	if req.GrantType == "" {
		return TokenRequest{}, NewError(CodeInvalidRequest, "grant_type is missing")
	}
	return req, nil
}

// TokenQuery is a request about one token: an introspection request (RFC 7662
// §2.1) or a revocation request (RFC 7009 §2.1). It has no `token_type_hint`,
// because there is one type of token and a hint may be wrong.
type TokenQuery struct {
	// ClientID is the `client_id`, which a request with a client certificate
	// must carry (RFC 8705 §2).
	ClientID string
	// Token is the `token` as sent.
	Token string
}

// ParseTokenQuery reads an introspection or revocation request. It checks what
// [ParseTokenRequest] checks, with `token` instead of `grant_type`.
func ParseTokenQuery(r *http.Request) (TokenQuery, *Error) {
	form, err := readClientForm(r)
	if err != nil {
		return TokenQuery{}, err
	}
	query := TokenQuery{ClientID: form.Get("client_id"), Token: form.Get("token")}
	if query.Token == "" {
		return TokenQuery{}, NewError(CodeInvalidRequest, "token is missing")
	}
	return query, nil
}

// readClientForm reads the parameters of a client that authenticates only with
// a certificate.
func readClientForm(r *http.Request) (url.Values, *Error) {
	form, named, err := readForm(r)
	if err != nil {
		return nil, err
	}
	for _, name := range otherAuthentication {
		if form.Get(name) != "" {
			return nil, NewError(CodeInvalidRequest, name+" is not supported; the client authenticates with its certificate only")
		}
	}
	switch id := form.Get("client_id"); {
	case id == "" && named == "":
		return nil, NewError(CodeInvalidRequest, "client_id is missing")
	case id == "":
		form.Set("client_id", named)
	case named != "" && named != id:
		return nil, NewError(CodeInvalidRequest, "the Authorization header names another client than client_id")
	}
	return form, nil
}

// readForm reads the form body of a request to an OAuth endpoint, and the client
// that its Authorization header names.
func readForm(r *http.Request) (form url.Values, named string, err *Error) {
	if r.Method != http.MethodPost {
		e := NewError(CodeInvalidRequest, "use POST").withHeader("Allow", http.MethodPost)
		e.Status = http.StatusMethodNotAllowed
		return nil, "", e
	}
	if named, err = clientOfHeader(r.Header.Values("Authorization")); err != nil {
		return nil, "", err
	}
	if err = checkQuery(r.URL.RawQuery); err != nil {
		return nil, "", err
	}
	if err = checkContentType(r.Header.Values("Content-Type")); err != nil {
		return nil, "", err
	}
	body, err := readBody(r.Body)
	if err != nil {
		return nil, "", err
	}
	form, err = parseForm(body)
	return form, named, err
}

// clientOfHeader returns the client that the Authorization header names without
// authenticating it: the user name of HTTP Basic with an empty password, which
// libraries send for a client without a secret. It refuses every other way to
// authenticate. HTTP Basic must be answered with 401 and a challenge (RFC 6749
// §5.2).
func clientOfHeader(values []string) (named string, refused *Error) {
	const remedy = "; send client_id in the form, the client authenticates with its certificate only"
	for _, value := range values {
		scheme, credentials, _ := strings.Cut(strings.TrimSpace(value), " ")
		if !strings.EqualFold(scheme, "Basic") {
			continue
		}
		if id, ok := basicClient(credentials); ok && len(values) == 1 {
			return id, nil
		}
		return "", InvalidClient("HTTP Basic is not supported with a password"+remedy, true)
	}
	if len(values) > 0 {
		return "", NewError(CodeInvalidRequest, "the Authorization header is not supported"+remedy)
	}
	return "", nil
}

// basicClient returns the user name of HTTP Basic credentials (RFC 7617 §2), which
// OAuth clients encode as in a form (RFC 6749 §2.3.1). ok is false unless the
// password is empty.
func basicClient(credentials string) (id string, ok bool) {
	if len(credentials) > maxBasic {
		return "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials))
	if err != nil {
		return "", false
	}
	user, hasNoPassword := strings.CutSuffix(string(decoded), ":")
	if !hasNoPassword || strings.Contains(user, ":") {
		return "", false
	}
	id, err = url.QueryUnescape(user)
	return id, err == nil && utf8.ValidString(id)
}

func checkQuery(query string) *Error {
	if query == "" {
		return nil
	}
	if strings.Count(query, "&") >= maxParameters {
		return NewError(CodeInvalidRequest, "there are too many parameters in the query string")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return NewError(CodeInvalidRequest, "the query string is malformed")
	}
	for _, name := range bodyOnly {
		if values.Has(name) {
			return NewError(CodeInvalidRequest, name+" belongs in the request body, not in the URL")
		}
	}
	return nil
}

func checkContentType(values []string) *Error {
	const form = "application/x-www-form-urlencoded"
	var mediaType string
	if len(values) == 1 && len(values[0]) <= maxContentType {
		mediaType, _, _ = mime.ParseMediaType(values[0])
	}
	switch {
	case mediaType == form:
		return nil
	case mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"):
		return NewError(CodeInvalidRequest, "the request body is JSON; send it as "+form)
	}
	return NewError(CodeInvalidRequest, "the Content-Type must be "+form)
}

func readBody(r io.Reader) (string, *Error) {
	if r == nil {
		return "", nil
	}
	body, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	var tooLarge *http.MaxBytesError // a server's own, smaller limit
	switch {
	case len(body) > maxBody || errors.As(err, &tooLarge):
		e := NewError(CodeInvalidRequest, "the request body is too large").withCause(err)
		e.Status = http.StatusRequestEntityTooLarge
		return "", e
	case err != nil:
		return "", NewError(CodeInvalidRequest, "the request body could not be read").withCause(err)
	}
	return string(body), nil
}

func parseForm(body string) (url.Values, *Error) {
	if strings.Count(body, "&") >= maxParameters {
		return nil, NewError(CodeInvalidRequest, "there are too many parameters")
	}
	form, err := url.ParseQuery(body) // refuses ';' and broken percent-encoding
	if err != nil {
		return nil, NewError(CodeInvalidRequest, "the request body is not a well-formed form").withCause(err)
	}
	for name, values := range form {
		if len(values) > 1 && name != "resource" {
			return nil, NewError(CodeInvalidRequest, "a parameter is included more than once").
				withCause(fmt.Errorf("parameter %.100q", name))
		}
		if !utf8.ValidString(name) || !utf8.ValidString(strings.Join(values, " ")) {
			return nil, NewError(CodeInvalidRequest, "a parameter is not valid UTF-8").
				withCause(fmt.Errorf("parameter %.100q", name))
		}
	}
	return form, nil
}
