package tokens

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// FuzzParseTokenRequest sends any body with any content type. The result is a
// request with the content of the body, or an error that can be written.
func FuzzParseTokenRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, body, contentType string) {
		r := httptest.NewRequest(http.MethodPost, testURL, strings.NewReader(body))
		r.Header["Content-Type"] = []string{contentType}
		req, err := ParseTokenRequest(r)
		if err != nil {
			checkWritable(t, err)
			return
		}
		form, parseErr := url.ParseQuery(body)
		if parseErr != nil || len(body) > maxBody {
			t.Fatalf("accepted a body that is none: %v", parseErr)
		}
		for name, want := range map[string]string{"client_id": req.ClientID, "grant_type": req.GrantType, "scope": req.Scope} {
			if form.Get(name) != want || len(form[name]) > 1 {
				t.Fatalf("%s is %q, the form says %q", name, want, form[name])
			}
		}
		if req.ClientID == "" || req.GrantType == "" || form.Get("client_secret") != "" {
			t.Fatalf("accepted %+v", req)
		}

		issuer := newFuzzIssuer(t)
		if _, err := issuer.Mint(t.Context(), newGrant("api1", "orders.read"), req); err != nil {
			checkWritable(t, err)
		}
	})
}

// FuzzParseTokenQuery sends any body. The result is a query with the content
// of the body, or an error that can be written.
func FuzzParseTokenQuery(f *testing.F) {
	f.Fuzz(func(t *testing.T, body string) {
		query, err := ParseTokenQuery(post(body))
		if err != nil {
			checkWritable(t, err)
			return
		}
		form, parseErr := url.ParseQuery(body)
		if parseErr != nil || len(body) > maxBody {
			t.Fatalf("accepted a body that is none: %v", parseErr)
		}
		if query.Token == "" || len(form["token"]) != 1 || form.Get("token") != query.Token {
			t.Fatalf("token is %q, the form says %q", query.Token, form["token"])
		}
		if query.ClientID == "" || len(form["client_id"]) != 1 || form.Get("client_id") != query.ClientID || form.Get("client_secret") != "" {
			t.Fatalf("accepted %+v", query)
		}
	})
}

// FuzzBasicClient sends any credentials of HTTP Basic. They name a client only with
// an empty password.
func FuzzBasicClient(f *testing.F) {
	f.Fuzz(func(t *testing.T, credentials string) {
		id, ok := basicClient(credentials)
		if !ok {
			return
		}
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials))
		if err != nil || !strings.HasSuffix(string(decoded), ":") || strings.Count(string(decoded), ":") != 1 || !utf8.ValidString(id) || len(id) > maxBasic {
			t.Fatalf("%q names %q: %v", decoded, id, err)
		}
	})
}

// FuzzRevokedName parses any object name. It is a revocation only if it is
// exactly the name that would be written for it.
func FuzzRevokedName(f *testing.F) {
	f.Fuzz(func(t *testing.T, name string) {
		record, err := parseRevokedName(name)
		if err != nil {
			return
		}
		if record.name() != name || record.expires < 0 || record.until < 0 {
			t.Fatalf("%q was read as %+v", name, record)
		}
		r := newTestRevoked(t, newStorage(t))
		record.expires = testenv.Now.Unix() // it is not about clocks
		r.learn([]revokedRecord{record}, true)
		list := r.current.Load()
		_, listed := list.tokens[record.token]
		_, cutOff := list.cutoffs[record.client]
		if listed == record.all || cutOff != record.all || len(list.tokens)+len(list.cutoffs) != 1 {
			t.Fatalf("%q has no effect", name)
		}
	})
}

func newFuzzIssuer(t *testing.T) *Issuer {
	t.Helper()
	keys := fixedKeys(exampleKey(t))
	issuer, err := NewIssuer(IssuerConfig{URL: testURL, Resources: apis, Audience: []string{"api"}, Now: testenv.NewClock().Now}, keys)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// checkWritable checks an error against RFC 6749 §5.2.
func checkWritable(t *testing.T, e *Error) {
	t.Helper()
	w := httptest.NewRecorder()
	WriteError(w, e, "abc123")
	var body map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code < 400 || w.Code > 499 {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	if strings.Contains(body["error_description"], "?") || body["error"] == "" {
		t.Fatalf("error is %q", body)
	}
}
