package tokens

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const formType = "application/x-www-form-urlencoded"

func post(body string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, testURL+"/connect/token", strings.NewReader(body))
	r.Header.Set("Content-Type", formType)
	for _, c := range change {
		c(r)
	}
	return r
}

func header(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

const minimal = "grant_type=client_credentials&client_id=mtls.client"

func TestParseTokenRequest(t *testing.T) {
	all := func(s string) string { return minimal + s }
	for name, tc := range map[string]struct {
		r    *http.Request
		want TokenRequest
	}{
		"minimal":                 {post(minimal), newRequest("")},
		"all":                     {post(all("&scope=api1+telemetry&resource=https%3A%2F%2Fa.example&resource=urn:b")), newRequest("api1 telemetry", "https://a.example", "urn:b")},
		"empty scope is absent":   {post(all("&scope=&resource=&client_secret=")), newRequest("")},
		"unknown parameter":       {post(all("&audience=x")), newRequest("")},
		"empty pairs":             {post("&&" + minimal + "&"), newRequest("")},
		"charset":                 {post(minimal, header("Content-Type", formType+"; charset=UTF-8")), newRequest("")},
		"content type, case":      {post(minimal, header("Content-Type", "Application/X-WWW-Form-Urlencoded")), newRequest("")},
		"harmless query":          {post(minimal, func(r *http.Request) { r.URL.RawQuery = "trace=1" }), newRequest("")},
		"64 parameters":           {post(all(strings.Repeat("&resource=urn:x", 62))), newRequest("", slices.Repeat([]string{"urn:x"}, 62)...)},
		"a body of 64 KiB":        {post(all("&x=" + strings.Repeat("x", maxBody-len(minimal)-3))), newRequest("")},
		"another grant is parsed": {post("grant_type=password&client_id=a"), TokenRequest{ClientID: "a", GrantType: "password"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseTokenRequest(tc.r)
			if err != nil {
				t.Fatal(err)
			}
			if got.ClientID != tc.want.ClientID || got.GrantType != tc.want.GrantType || got.Scope != tc.want.Scope || !slices.Equal(got.Resources, tc.want.Resources) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestMalformedRequests_R28 covers invalid_request (RFC 6749 §5.2): two
// authentication methods, a repeated parameter, a missing one, and a malformed
// form.
func TestMalformedRequests_R28(t *testing.T) {
	query := func(q string) func(*http.Request) {
		return func(r *http.Request) { r.URL.RawQuery = q }
	}
	for name, tc := range map[string]struct {
		r           *http.Request
		description string
	}{
		"no client_id":             {post("grant_type=client_credentials"), "client_id is missing"},
		"empty client_id":          {post("grant_type=client_credentials&client_id="), "client_id is missing"},
		"client_id in the URL":     {post("grant_type=client_credentials", query("client_id=a")), "client_id belongs in the request body"},
		"secret in the URL":        {post(minimal, query("client_secret=hunter2")), "client_secret belongs in the request body"},
		"broken query":             {post(minimal, query("%zz=1")), "the query string is malformed"},
		"no grant_type":            {post("client_id=a"), "grant_type is missing"},
		"empty body":               {post(""), "client_id is missing"},
		"client_id twice":          {post(minimal + "&client_id=mtls.client"), "more than once"},
		"scope twice, one empty":   {post(minimal + "&scope=&scope=a"), "more than once"},
		"unknown parameter twice":  {post(minimal + "&x=1&x=2"), "more than once"},
		"client_secret":            {post(minimal + "&client_secret=hunter2"), "client_secret is not supported"},
		"client_assertion":         {post(minimal + "&client_assertion=e30"), "client_assertion is not supported"},
		"client_assertion_type":    {post(minimal + "&client_assertion_type=urn:x"), "client_assertion_type is not supported"},
		"65 parameters":            {post(minimal + strings.Repeat("&resource=urn:x", 63)), "too many parameters"},
		"semicolon":                {post("grant_type=client_credentials;client_id=a"), "not a well-formed form"},
		"percent-encoding":         {post(minimal + "&scope=%zz"), "not a well-formed form"},
		"cut off percent-encoding": {post(minimal + "&scope=%4"), "not a well-formed form"},
		"UTF-8, encoded":           {post(minimal + "&scope=%ff"), "not valid UTF-8"},
		"UTF-8, raw":               {post(minimal + "&scope=\xff"), "not valid UTF-8"},
		"UTF-8, name":              {post(minimal + "&%ff=1"), "not valid UTF-8"},
		"JSON":                     {post(`{"grant_type":"client_credentials"}`, header("Content-Type", "application/json")), "the request body is JSON"},
		"JSON of a kind":           {post(`{}`, header("Content-Type", "application/vnd.api+json; charset=utf-8")), "the request body is JSON"},
		"multipart":                {post("", header("Content-Type", "multipart/form-data; boundary=x")), "Content-Type must be " + formType},
		"no content type":          {post(minimal, header("Content-Type")), "Content-Type must be"},
		"two content types":        {post(minimal, header("Content-Type", formType, formType)), "Content-Type must be"},
		"long content type":        {post(minimal, header("Content-Type", formType+"; charset="+strings.Repeat("b", maxContentType))), "Content-Type must be"},
		"64 query parameters":      {post(minimal, func(r *http.Request) { r.URL.RawQuery = strings.Repeat("a=b&", 64) }), "too many parameters in the query"},
		"broken content type":      {post(minimal, header("Content-Type", ";")), "Content-Type must be"},
		"bearer token":             {post(minimal, header("Authorization", "Bearer x")), "Authorization header is not supported"},
		"empty authorization":      {post(minimal, header("Authorization", "")), "Authorization header is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseTokenRequest(tc.r)
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if err.Status != http.StatusBadRequest || err.Code != CodeInvalidRequest || !strings.Contains(err.Description, tc.description) {
				t.Errorf("got %d %s %q, want %q", err.Status, err.Code, err.Description, tc.description)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the secret gets into the log: %v", err)
			}
		})
	}
}

// TestTokenQueries_R36_R39 checks that the rules for token requests also hold
// for requests about a token.
func TestTokenQueries_R36_R39(t *testing.T) {
	const minimal = "client_id=mtls.client&token=abc"
	for name, body := range map[string]string{
		"minimal": minimal, "hint": minimal + "&token_type_hint=access_token", "unknown hint": minimal + "&token_type_hint=refresh_token",
		"empty parameters": minimal + "&client_secret=&scope=", "unknown parameter": minimal + "&foo=bar",
	} {
		if got, err := ParseTokenQuery(post(body)); err != nil || got != (TokenQuery{ClientID: "mtls.client", Token: "abc"}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	get := post(minimal)
	get.Method = http.MethodGet
	for name, tc := range map[string]struct {
		r           *http.Request
		status      int
		code        string
		description string
	}{
		"GET":              {get, 405, CodeInvalidRequest, "use POST"},
		"no token":         {post("client_id=mtls.client"), 400, CodeInvalidRequest, "token is missing"},
		"empty token":      {post("client_id=mtls.client&token="), 400, CodeInvalidRequest, "token is missing"},
		"token twice":      {post(minimal + "&token=abc"), 400, CodeInvalidRequest, "more than once"},
		"hint twice":       {post(minimal + "&token_type_hint=a&token_type_hint=b"), 400, CodeInvalidRequest, "more than once"},
		"no client_id":     {post("token=abc"), 400, CodeInvalidRequest, "client_id is missing"},
		"client_secret":    {post(minimal + "&client_secret=hunter2"), 400, CodeInvalidRequest, "client_secret is not supported"},
		"assertion":        {post(minimal + "&client_assertion=x"), 400, CodeInvalidRequest, "client_assertion is not supported"},
		"Basic":            {post(minimal, header("Authorization", "Basic x")), 401, CodeInvalidClient, "HTTP Basic is not supported"},
		"Bearer":           {post(minimal, header("Authorization", "Bearer x")), 400, CodeInvalidRequest, "Authorization header is not supported"},
		"token in the URL": {post("client_id=mtls.client", func(r *http.Request) { r.URL.RawQuery = "token=abc" }), 400, CodeInvalidRequest, "token belongs in the request body"},
		"JSON":             {post(`{}`, header("Content-Type", "application/json")), 400, CodeInvalidRequest, "the request body is JSON"},
		"too large":        {post(minimal + strings.Repeat("x", maxBody)), 413, CodeInvalidRequest, "too large"},
	} {
		got, err := ParseTokenQuery(tc.r)
		if err == nil || err.Status != tc.status || err.Code != tc.code || !strings.Contains(err.Description, tc.description) || got != (TokenQuery{}) {
			t.Errorf("%s: got %+v, %v, want %d %s", name, got, err, tc.status, tc.description)
		}
	}
}

func TestBasicAuthenticationIsChallenged_R27(t *testing.T) {
	for _, values := range [][]string{
		{"Basic bXRscy5jbGllbnQ6aHVudGVyMg=="}, {"basic x"}, {"BASIC"}, {" Basic x"}, {"Bearer x", "Basic x"},
	} {
		_, err := ParseTokenRequest(post(minimal, header("Authorization", values...)))
		if err == nil || err.Status != http.StatusUnauthorized || err.Code != CodeInvalidClient ||
			!strings.HasPrefix(err.Header.Get("WWW-Authenticate"), `Basic realm="`) {
			t.Errorf("%q: got %+v", values, err)
		}
	}
}

// TestBasicWithoutAPassword checks that HTTP Basic with an empty password names the
// client, as IdentityModel and x/oauth2 send it, and that nothing else does.
func TestBasicWithoutAPassword(t *testing.T) {
	const nameless = "grant_type=client_credentials&token=t"
	basic := func(credentials string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
	}
	for name, tc := range map[string]struct {
		authorization, body string
		want                string // the client, or what the description says
		status              int
	}{
		"alone":                    {basic("mtls.client:"), nameless, "mtls.client", 0},
		"with the same client_id":  {basic("mtls.client:"), nameless + "&client_id=mtls.client", "mtls.client", 0},
		"with an empty client_id":  {basic("mtls.client:"), nameless + "&client_id=", "mtls.client", 0},
		"encoded as in a form":     {basic("partner%3Ax%2By%2F+z:"), nameless, "partner:x+y/ z", 0},
		"in any case":              {"bAsIc  " + basic("a:")[6:] + " ", nameless, "a", 0},
		"of no name":               {basic(":"), nameless + "&client_id=a", "a", 0},
		"with another client_id":   {basic("a:"), nameless + "&client_id=b", "names another client", 400},
		"with another in case":     {basic("a:"), nameless + "&client_id=A", "names another client", 400},
		"of no name, nor the form": {basic(":"), nameless, "client_id is missing", 400},
		"with client_secret":       {basic("a:"), nameless + "&client_secret=x", "client_secret is not supported", 400},
		"with a password":          {basic("a:hunter2"), nameless, "send client_id in the form", 401},
		"with a space as password": {basic("a: "), nameless, "send client_id in the form", 401},
		"with a second colon":      {basic("a:b:"), nameless, "send client_id in the form", 401},
		"without a colon":          {basic("a"), nameless, "send client_id in the form", 401},
		"not base64":               {"Basic a:", nameless, "send client_id in the form", 401},
		"no credentials":           {"Basic", nameless, "send client_id in the form", 401},
		"not UTF-8":                {basic("%ff:"), nameless, "send client_id in the form", 401},
		"not well encoded":         {basic("%zz:"), nameless, "send client_id in the form", 401},
		"too long":                 {basic(strings.Repeat("a", 1000) + ":"), nameless, "send client_id in the form", 401},
	} {
		request, err := ParseTokenRequest(post(tc.body, header("Authorization", tc.authorization)))
		query, queryErr := ParseTokenQuery(post(tc.body, header("Authorization", tc.authorization)))
		if tc.status == 0 {
			if err != nil || queryErr != nil || request.ClientID != tc.want || query.ClientID != tc.want {
				t.Errorf("%s: got %q, %v and %q, %v, want %q", name, request.ClientID, err, query.ClientID, queryErr, tc.want)
			}
			continue
		}
		for _, err := range []*Error{err, queryErr} {
			if err == nil || err.Status != tc.status || !strings.Contains(err.Description, tc.want) || (err.Header.Get("WWW-Authenticate") != "") != (tc.status == 401) {
				t.Errorf("%s: got %+v, want %d %q", name, err, tc.status, tc.want)
			} else if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: the password gets into the log: %v", name, err)
			}
		}
	}
	if _, err := ParseTokenRequest(post(minimal, header("Authorization", basic("mtls.client:"), basic("mtls.client:")))); err == nil || err.Status != 401 {
		t.Errorf("two headers: got %v", err)
	}
}

func TestPostOnly_R29(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", "PATCH"} {
		r := post(minimal)
		r.Method = method
		_, err := ParseTokenRequest(r)
		if err == nil || err.Status != http.StatusMethodNotAllowed || err.Header.Get("Allow") != "POST" || err.Code != CodeInvalidRequest {
			t.Errorf("%s: got %+v", method, err)
		}
	}
}

func TestRequestBodies(t *testing.T) {
	long := minimal + "&x=" + strings.Repeat("x", maxBody)
	for name, tc := range map[string]struct {
		body   io.Reader
		status int
	}{
		"too large":              {strings.NewReader(long), http.StatusRequestEntityTooLarge},
		"endless":                {endless{}, http.StatusRequestEntityTooLarge},
		"over a server's limit":  {http.MaxBytesReader(nil, io.NopCloser(strings.NewReader(minimal)), 10), http.StatusRequestEntityTooLarge},
		"the connection is lost": {iotest.ErrReader(errors.New("lost")), http.StatusBadRequest},
	} {
		r := post("")
		r.Body = io.NopCloser(tc.body)
		_, err := ParseTokenRequest(r)
		if err == nil || err.Status != tc.status || err.Code != CodeInvalidRequest {
			t.Errorf("%s: got %+v", name, err)
		}
	}
	r := post("")
	r.Body = nil
	if _, err := ParseTokenRequest(r); err == nil || err.Code != CodeInvalidRequest {
		t.Errorf("no body: got %+v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = 'x'
	}
	return len(p), nil
}

func TestCheckGrant(t *testing.T) {
	for grant, code := range map[string]string{
		"client_credentials":  "",
		"":                    CodeInvalidRequest,
		"password":            CodeUnsupportedGrantType,
		"Client_Credentials":  CodeUnsupportedGrantType,
		"authorization_code":  CodeUnsupportedGrantType,
		"client_credentials ": CodeUnsupportedGrantType,
	} {
		err := TokenRequest{GrantType: grant}.CheckGrant()
		got := ""
		if err != nil {
			got = err.Code
		}
		if got != code {
			t.Errorf("%q: got %q, want %q", grant, got, code)
		}
	}
}

func TestDescriptionsNeverRepeatWhatTheCallerSent(t *testing.T) {
	const mark = "xyzzy"
	issuer := newTestIssuer(t, IssuerConfig{Resources: []Resource{{Name: "https://api.example.com", Scopes: []string{"api1"}}}})
	var errs []*Error
	for _, form := range []url.Values{
		{mark: {"1", "2"}},
		{"grant_type": {mark}, "client_id": {"a"}},
		{"grant_type": {"client_credentials"}, "client_id": {"a"}, "scope": {mark}},
		{"grant_type": {"client_credentials"}, "client_id": {"a"}, "scope": {mark + `"`}},
		{"grant_type": {"client_credentials"}, "client_id": {"a"}, "resource": {mark}},
		{"grant_type": {"client_credentials"}, "client_id": {"a"}, "resource": {"https://" + mark}},
		{"grant_type": {"client_credentials"}, "client_id": {"a"}, "client_secret": {mark}},
	} {
		req, err := ParseTokenRequest(post(form.Encode()))
		if err == nil {
			_, err = issuer.Mint(t.Context(), newGrant("api1"), req)
		}
		errs = append(errs, err)
	}
	_, typeErr := ParseTokenRequest(post(minimal, header("Content-Type", mark)))
	_, authErr := ParseTokenRequest(post(minimal, header("Authorization", mark)))
	for _, err := range append(errs, typeErr, authErr) {
		if err == nil || strings.Contains(err.Description, mark) || strings.Contains(err.Code, mark) {
			t.Errorf("got %+v", err)
		}
	}
}
