package tokens

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzParseTokenRequest sends any body as any content type: the answer is a
// request that says what the body says, or an error that can be written.
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

// FuzzParseTokenQuery sends any body: the answer is a query that says what the
// body says, or an error that can be written.
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

// FuzzStoredRevocation reads any name of an object: it is a revocation only if
// it is exactly the name that would be written for it.
func FuzzStoredRevocation(f *testing.F) {
	f.Fuzz(func(t *testing.T, name string) {
		record, err := parseRevocation(name)
		if err != nil {
			return
		}
		if record.name() != name || record.expires < 0 || record.until < 0 {
			t.Fatalf("%q was read as %+v", name, record)
		}
		r := newTestRevocations(t, newStorage(t))
		record.expires = testNow.Unix() // it is not about clocks
		r.learn([]storedRevocation{record}, true)
		if list := r.current.Load(); !list.covers(record) || len(list.tokens)+len(list.cutoffs) != 1 {
			t.Fatalf("%q has no effect", name)
		}
	})
}

func newFuzzIssuer(t *testing.T) *Issuer {
	t.Helper()
	keys := FixedKeys(NewKeyring(exampleKey(t)))
	issuer, err := NewIssuer(IssuerConfig{URL: testURL, Resources: apis, Audience: []string{"api"}, Now: newClock().Now}, keys)
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

// examplePEM is the example key of RFC 8410 §10.3.
const examplePEM = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
`

func exampleKey(t testing.TB) *Key {
	t.Helper()
	key, err := parsePrivateKeyPEM([]byte(examplePEM), EdDSA, testNow)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// FuzzParsePrivateKeyPEM parses any file for any algorithm: what comes out
// signs, and parses again to the same key.
func FuzzParsePrivateKeyPEM(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte, alg string) {
		key, err := ParsePrivateKeyPEM(data, Algorithm(alg))
		if err != nil {
			if err.Error() == "" {
				t.Fatal("the error says nothing")
			}
			return
		}
		if alg != "" && key.Algorithm() != Algorithm(alg) {
			t.Fatalf("asked for %q, got %q", alg, key.Algorithm())
		}
		if raw, err := base64.RawURLEncoding.DecodeString(key.ID()); err != nil || len(raw) != 32 {
			t.Fatalf("kid is %q", key.ID())
		}
		again, err := encodePrivateKeyPEM(key.private)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := ParsePrivateKeyPEM(again, key.Algorithm()); err != nil || same.ID() != key.ID() {
			t.Fatalf("the key does not survive: %v", err)
		}
		if _, err := key.sign(typeAccess, []byte("{}")); err != nil {
			t.Fatalf("the key does not sign: %v", err)
		}
	})
}

// FuzzStoredKey loads any object: it is used only if it is whole and ours, and
// what is not used is reported without its key.
func FuzzStoredKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		const part = "1hK1bbY8fdp" // of examplePEM
		var object storedKey
		_ = json.Unmarshal(data, &object)
		key, event, err := decodeStoredKey(data, testURL)
		if err != nil {
			if key.Key != nil || event == "" {
				t.Fatalf("got key %v, event %q", key, event)
			}
			// Any other member may hold the same text, and be repeated.
			onlyInKey := strings.Count(string(data), part) == strings.Count(object.PrivateKey, part)
			if onlyInKey && strings.Contains(err.Error(), part) {
				t.Fatalf("the error holds the key: %v", err)
			}
			return
		}
		if object.Issuer != testURL || object.Version < 1 || object.Version > storedKeyVersion || object.KeyID != key.ID() ||
			object.Algorithm != key.Algorithm() || !object.Created.Equal(key.Created()) {
			t.Fatalf("%s was read as %+v", data, key)
		}
		if object.Version == 1 && !key.signsFrom.Equal(key.created) || object.Version == 2 && !object.SignsFrom.Equal(key.signsFrom) || key.longest <= 0 {
			t.Fatalf("%s signs from %v, tokens for %v", data, key.signsFrom, key.longest)
		}
		encoded, err := encodeStoredKey(key, testURL)
		if err != nil {
			years := []int{key.created.Year(), key.signsFrom.Year()}
			if slices.Min(years) >= 0 && slices.Max(years) <= 9999 {
				t.Fatal(err)
			}
			return
		}
		if same, _, err := decodeStoredKey(encoded, testURL); err != nil || same.ID() != key.ID() || !same.signsFrom.Equal(key.signsFrom) || same.longest != key.longest {
			t.Fatalf("the key does not survive: %v", err)
		}

		store, _ := newStore(t, newStorage(t))
		putRaw(t, store, key.ID(), data)
		if ring, err := store.Load(t.Context()); err != nil || ring.Signing().ID() != key.ID() {
			t.Fatalf("%s: got %v, %v", key.Algorithm(), ring, err)
		}
	})
}

// The key of RFC 9500 §2.3.
const rfc9500PEM = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIObLW92AqkWunJXowVR2Z5/+yVPBaFHnEedDk5WJxk/BoAoGCCqGSM49
AwEHoUQDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjV
uKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg==
-----END EC PRIVATE KEY-----
`

func TestExampleKeysParse(t *testing.T) {
	if got := exampleKey(t).Algorithm(); got != EdDSA {
		t.Errorf("algorithm is %s", got)
	}
	key, err := parsePrivateKeyPEM([]byte(rfc9500PEM), "", time.Time{})
	if err != nil || key.Algorithm() != ES256 {
		t.Errorf("got %v, %v", key, err)
	}
}
