package tokens

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// keyServer is another authorization server, with any documents.
type keyServer struct {
	*httptest.Server
	documents atomic.Pointer[map[string]string] // by path; @ is the server's URL
	asked     atomic.Int64
}

func newKeyServer(t *testing.T, documents map[string]string) *keyServer {
	s := new(keyServer)
	s.documents.Store(&documents)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		document, ok := (*s.documents.Load())[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=300")
		_, _ = io.WriteString(w, strings.ReplaceAll(document, "@", s.URL))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) issuer(t *testing.T, path, jwksURI string, now func() time.Time) *TrustedKeys {
	t.Helper()
	issuer, err := NewTrustedKeys(TrustedKeysConfig{Issuer: s.URL + path, JWKSURI: jwksURI, Transport: s.Client().Transport, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func jwksOf(keys ...testKey) string {
	docs := make([]string, len(keys))
	for i, key := range keys {
		docs[i] = string(key.publicDoc())
	}
	return `{"keys":[` + strings.Join(docs, ",") + `]}`
}

const (
	serverMetadata = `{"issuer":"@","jwks_uri":"@/keys"}`
	rfc8414Path    = "/.well-known/oauth-authorization-server"
	oidcPath       = "/.well-known/openid-configuration"
)

func TestTrustedKeysMetadata_R41(t *testing.T) {
	key := exampleKey(t)
	keys := jwksOf(key)
	good := func(path string) string { return `{"issuer":"@` + path + `","jwks_uri":"@/keys"}` }
	for name, test := range map[string]struct {
		path, jwksURI string
		documents     map[string]string
		want          string
	}{
		"RFC 8414":                  {"", "", map[string]string{rfc8414Path: good(""), "/keys": keys}, ""},
		"OpenID Connect":            {"", "", map[string]string{oidcPath: good(""), "/keys": keys}, ""},
		"RFC 8414 with a path":      {"/a/b", "", map[string]string{rfc8414Path + "/a/b": good("/a/b"), "/keys": keys}, ""},
		"OpenID Connect, a path":    {"/a/b", "", map[string]string{"/a/b" + oidcPath: good("/a/b"), "/keys": keys}, ""},
		"a slash at its end":        {"/a/", "", map[string]string{"/a" + oidcPath: good("/a/"), "/keys": keys}, ""},
		"jwks_uri":                  {"", "@/mine", map[string]string{"/mine": keys}, ""},
		"of another issuer":         {"", "", map[string]string{rfc8414Path: good("/other"), "/keys": keys}, "metadata of issuer"},
		"another, then the right":   {"", "", map[string]string{rfc8414Path: good("/other"), oidcPath: good(""), "/keys": keys}, ""},
		"not byte for byte":         {"/a", "", map[string]string{rfc8414Path + "/a": good("/a/"), "/keys": keys}, "metadata of issuer"},
		"without an issuer":         {"", "", map[string]string{rfc8414Path: `{"jwks_uri":"@/keys"}`, "/keys": keys}, "metadata of issuer"},
		"jwks_uri without TLS":      {"", "", map[string]string{rfc8414Path: `{"issuer":"@","jwks_uri":"http://127.0.0.1/keys"}`}, "not an https URL"},
		"without jwks_uri":          {"", "", map[string]string{rfc8414Path: `{"issuer":"@"}`}, "has no jwks_uri"},
		"jwks_uri is not a string":  {"", "", map[string]string{rfc8414Path: `{"issuer":"@","jwks_uri":1}`}, "not a string"},
		"names have case":           {"", "", map[string]string{rfc8414Path: `{"Issuer":"@","jwks_uri":"@/keys"}`}, "metadata of issuer"},
		"no metadata":               {"", "", nil, "404"},
		"no JSON":                   {"", "", map[string]string{rfc8414Path: "<html>"}, "not a JSON object"},
		"no keys":                   {"", "", map[string]string{rfc8414Path: good("")}, "jwks_uri of"},
		"keys without an array":     {"", "", map[string]string{rfc8414Path: good(""), "/keys": `{}`}, "not a JWK Set"},
		"keys are null":             {"", "", map[string]string{rfc8414Path: good(""), "/keys": `{"keys":null}`}, "not a JWK Set"},
		"keys are not JSON":         {"", "", map[string]string{rfc8414Path: good(""), "/keys": `x`}, "not a JWK Set"},
		"keys without end":          {"", "", map[string]string{rfc8414Path: good(""), "/keys": strings.Repeat(" ", maxTrustedDocument+1)}, "more than 262144 bytes"},
		"more keys than anyone has": {"", "", map[string]string{rfc8414Path: good(""), "/keys": `{"keys":[` + strings.Repeat("1,", 100) + `1]}`}, "101 keys"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeyServer(t, test.documents)
			issuer := s.issuer(t, test.path, strings.ReplaceAll(test.jwksURI, "@", s.URL), nil)
			if issuer.Ready() || !issuer.Due().IsZero() {
				t.Error("a new one is not due")
			}
			changed, err := issuer.Refresh(t.Context())
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			_, found := issuer.PublicKey(key.ID, key.Algorithm)
			if ok := err == nil; changed != ok || issuer.Ready() != ok || found != ok || issuer.LastSuccess().IsZero() == ok {
				t.Errorf("changed %t, ready %t, key %t, last success %s", changed, issuer.Ready(), found, issuer.LastSuccess())
			}
		})
	}
	for address, want := range map[[2]string]string{
		{"http://as.example", ""}:                       "not an https URL",
		{"https://as.example?x", ""}:                    "query",
		{"https://as.example", "http://as.example/key"}: "not an https URL",
	} {
		if _, err := NewTrustedKeys(TrustedKeysConfig{Issuer: address[0], JWKSURI: address[1]}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestTrustedJWKS checks which keys of a JWKS count.
func TestTrustedJWKS(t *testing.T) {
	ec, ed, big := mustKey(t, keyring.ES256), exampleKey(t), mustKey(t, keyring.RS256)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	jwk := func(key any, alg, use string) map[string]any {
		encoded, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "k", Algorithm: alg, Use: use})
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := json.Unmarshal(encoded, &object); err != nil {
			t.Fatal(err)
		}
		return object
	}
	with := func(object map[string]any, name string, value any) map[string]any {
		object[name] = value
		return object
	}
	rsaAlgorithms := "[RS256 RS384 RS512 PS256 PS384 PS512]"
	for name, test := range map[string]struct {
		keys []any
		kid  string
		want string // the algorithms that a key is found for
	}{
		"with alg":                      {[]any{jwk(ec.private.Public(), "ES256", "sig")}, "k", "[ES256]"},
		"without alg":                   {[]any{jwk(ec.private.Public(), "", "")}, "k", "[ES256]"},
		"RSA with alg":                  {[]any{jwk(big.private.Public(), "PS256", "")}, "k", "[PS256]"},
		"RSA without alg":               {[]any{jwk(big.private.Public(), "", "sig")}, "k", rsaAlgorithms},
		"R47 RSA below 2048":            {[]any{jwk(&weak.PublicKey, "", "")}, "k", "[]"},
		"for encryption":                {[]any{jwk(big.private.Public(), "", "enc")}, "k", "[]"},
		"alg of encryption":             {[]any{jwk(big.private.Public(), "RSA-OAEP", "")}, "k", "[]"},
		"alg of another type":           {[]any{jwk(ec.private.Public(), "RS256", "")}, "k", "[]"},
		"alg of another curve":          {[]any{jwk(ec.private.Public(), "ES384", "")}, "k", "[]"},
		"key_ops":                       {[]any{with(jwk(ec.private.Public(), "", ""), "key_ops", []string{"verify"})}, "k", "[ES256]"},
		"key_ops without verify":        {[]any{with(jwk(ec.private.Public(), "", ""), "key_ops", []string{"encrypt"})}, "k", "[]"},
		"symmetric":                     {[]any{jwk([]byte("secret"), "HS256", "")}, "k", "[]"},
		"symmetric, of another alg":     {[]any{jwk([]byte("secret"), "", "")}, "k", "[]"},
		"private":                       {[]any{jwk(ec.private, "", "")}, "k", "[]"},
		"point not on the curve":        {[]any{with(jwk(ec.private.Public(), "", ""), "x", jwk(mustKey(t, keyring.ES256).private.Public(), "", "")["x"])}, "k", "[]"},
		"x5c that is damaged":           {[]any{with(jwk(ec.private.Public(), "", ""), "x5c", []string{"AAAA"})}, "k", "[ES256]"},
		"x5t that is stale":             {[]any{with(jwk(ec.private.Public(), "", ""), "x5t#S256", strings.Repeat("A", 43))}, "k", "[ES256]"},
		"unknown type, then a good one": {[]any{map[string]any{"kty": "AKP"}, 1, nil, jwk(ed.private.Public(), "", "")}, "k", "[EdDSA]"},
		"another kid":                   {[]any{jwk(ec.private.Public(), "", "")}, "other", "[]"},
		"no kid asked for, one fits":    {[]any{jwk(ec.private.Public(), "", ""), jwk(big.private.Public(), "", "")}, "", "[ES256 " + rsaAlgorithms[1:]},
		"no kid asked for, two fit":     {[]any{jwk(ec.private.Public(), "", ""), with(jwk(mustKey(t, keyring.ES256).private.Public(), "", ""), "kid", "l")}, "", "[]"},
		"no kid given":                  {[]any{with(jwk(ec.private.Public(), "", ""), "kid", "")}, "", "[ES256]"},
		"the same twice":                {[]any{jwk(ec.private.Public(), "", ""), jwk(ec.private.Public(), "", "")}, "k", "[ES256]"},
		"the same twice, alg once":      {[]any{jwk(ec.private.Public(), "ES256", ""), jwk(ec.private.Public(), "", "")}, "k", "[ES256]"},
		"one kid, two types":            {[]any{jwk(ec.private.Public(), "", ""), jwk(ed.private.Public(), "", "")}, "k", "[ES256 EdDSA]"},
		"one kid, two keys of one type": {[]any{jwk(ec.private.Public(), "", ""), jwk(mustKey(t, keyring.ES256).private.Public(), "", "")}, "k", "[]"},
		"one key for two algorithms":    {[]any{jwk(big.private.Public(), "RS256", ""), jwk(big.private.Public(), "PS256", "")}, "k", "[RS256 PS256]"},
		"kid without end":               {[]any{with(jwk(ec.private.Public(), "", ""), "kid", strings.Repeat("k", 600))}, strings.Repeat("k", 600), "[]"},
		"no key at all":                 {[]any{}, "k", "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := json.Marshal(map[string]any{"keys": test.keys})
			if err != nil {
				t.Fatal(err)
			}
			keys, _, err := parseTrustedJWKS(content)
			if err != nil {
				t.Fatal(err)
			}
			found := []keyring.Algorithm{}
			for _, alg := range keyring.Algorithms() {
				if key, ok := keys.find(test.kid, alg); ok {
					found = append(found, alg)
					if key.Algorithm != alg || !alg.VerifiesWith(key.Key) {
						t.Errorf("asked for %s, got %+v", alg, key)
					}
				}
			}
			if fmt.Sprint(found) != test.want {
				t.Errorf("found for %v, want %s", found, test.want)
			}
		})
	}
}

// TestTrustedKeysRollover checks that an unknown key is looked up soon,
// however many tokens name it, and that the old keys stay when the server has
// none.
func TestTrustedKeysRollover(t *testing.T) {
	v := newVerifierTest(t)
	first, second := mustKey(t, keyring.ES256), mustKey(t, keyring.ES256)
	s := newKeyServer(t, map[string]string{oidcPath: serverMetadata, "/keys": jwksOf(first)})
	issuer := s.issuer(t, "", "", v.clock.Now)
	v.config.Keys = issuer
	token := func(key testKey) string {
		v.key = key
		return v.sign(t, v.header(nil), v.claims(nil))
	}
	refresh := func(wantError bool) {
		t.Helper()
		if _, err := issuer.Refresh(t.Context()); (err != nil) != wantError {
			t.Fatal(err)
		}
	}
	v.want(t, token(first), TokenKeysUnavailable)
	refresh(false)
	old := v.want(t, token(first), "")
	v.clock.Advance(40 * time.Second)
	if due := issuer.Due(); !due.After(v.clock.Now()) {
		t.Errorf("due at %s", due)
	}

	s.documents.Store(&map[string]string{oidcPath: serverMetadata, "/keys": jwksOf(second)})
	asked := s.asked.Load()
	for range 1000 { // a flood of tokens that nobody has signed
		v.want(t, token(second), TokenKeyUnknown)
	}
	if !issuer.Due().IsZero() || s.asked.Load() != asked {
		t.Errorf("due at %s after %d fetches", issuer.Due(), s.asked.Load()-asked)
	}
	refresh(false)
	v.want(t, token(second), "")
	v.want(t, token(first), TokenKeyUnknown)
	if err := v.verifier(t).Recheck(old); reasonOf(t, err) != TokenKeyUnknown {
		t.Errorf("the key was withdrawn, but a token that was verified with it: %v", err)
	}
	if due := issuer.Due(); !due.After(v.clock.Now()) {
		t.Errorf("asked again within 30 s, and due at %s", due)
	}
	v.clock.Advance(-10 * time.Second) // a token lives for a minute

	s.documents.Store(&map[string]string{oidcPath: serverMetadata, "/keys": "out of order"})
	refresh(true)
	v.want(t, token(second), "")
	s.documents.Store(new(map[string]string))
	refresh(true)
	v.want(t, token(second), "")

	next := s.issuer(t, "", "", v.clock.Now)
	next.TakeOver(issuer)
	v.config.Keys = next
	v.want(t, token(second), "")
	other := s.issuer(t, "/other", "", v.clock.Now)
	other.TakeOver(issuer)
	if other.Ready() {
		t.Error("the keys of another issuer were taken over")
	}

	s.documents.Store(&map[string]string{oidcPath: serverMetadata, "/keys": `{"keys":[]}`})
	if _, err := next.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.want(t, token(second), TokenKeyUnknown) // all were withdrawn
}

// TestTokensWithoutKeyID checks that such tokens are accepted when only one
// key is possible.
func TestTokensWithoutKeyID(t *testing.T) {
	v := newVerifierTest(t)
	v.key = mustKey(t, keyring.ES256)
	documents := map[string]string{oidcPath: serverMetadata, "/keys": jwksOf(v.key, exampleKey(t))}
	s := newKeyServer(t, documents)
	issuer := s.issuer(t, "", "", v.clock.Now)
	v.config.Keys = issuer
	if _, err := issuer.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := v.sign(t, v.header(members{"kid": nil}), v.claims(nil))
	v.want(t, token, "")
	s.documents.Store(&map[string]string{oidcPath: serverMetadata, "/keys": jwksOf(v.key, mustKey(t, keyring.ES256))})
	if _, err := issuer.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.want(t, token, TokenKeyUnknown)
}

// FuzzTrustedKeys parses any JWKS. Only keys that can verify tokens come out.
func FuzzTrustedKeys(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		keys, faults, err := parseTrustedJWKS(content)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("the error says nothing")
			}
			return
		}
		if len(faults) > maxKeyFaults+1 || len(strings.Join(faults, "")) > 1000*(maxKeyFaults+1) {
			t.Fatalf("%d faults are told without a bound", len(faults))
		}
		for _, key := range keys {
			if len(key.algorithms) == 0 || len(key.id) > keyring.MaxKeyID {
				t.Fatalf("%+v is a key", key)
			}
			for _, alg := range key.algorithms {
				if !alg.VerifiesWith(key.key) {
					t.Fatalf("%T is good for %s", key.key, alg)
				}
			}
			if public, ok := key.key.(*rsa.PublicKey); ok && public.N.BitLen() < 2048 {
				t.Fatalf("an RSA key of %d bits", public.N.BitLen())
			}
			if _, private := key.key.(crypto.Signer); private {
				t.Fatal("a private key")
			}
		}
		if _, ok := keys.find("", keyring.EdDSA); ok && !slices.ContainsFunc(keys, func(k trustedKey) bool { return slices.Contains(k.algorithms, keyring.EdDSA) }) {
			t.Fatal("found a key that is not there")
		}
	})
}

// TestFaultsOfTrustedKeys checks that a key which is left out because of a fault is told,
// with its place, kid, cause and remedy, but not one that is for something else.
func TestFaultsOfTrustedKeys(t *testing.T) {
	good := string(mustKey(t, keyring.ES256).publicDoc())
	changed := func(old, replacement string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s has no %s", good, old)
		}
		return strings.Replace(good, old, replacement, 1)
	}
	for _, test := range []struct{ name, key, want string }{
		{"good", good, "[]"},
		{"for encryption", changed(`{`, `{"key_ops":["encrypt"],`), "[]"},
		{"an unknown type", `{"kty":"AKP","kid":"k"}`, "[]"},
		{"an alg that is not for tokens", `{"kty":"RSA","alg":"RSA-OAEP","kid":"k"}`, "[]"},
		{"not an object", `1`, "[key 1: it is not a JSON object; correct it in the JWKS]"},
		{"damaged", `{"kty":"EC","crv":"P-256","x":"!","y":"AA","kid":"k\n1"}`, `[key 1 (kid 'k\n1'): it cannot be read: a member is not base64url without padding (RFC 7518 §6); correct it in the JWKS]`},
		{"private", `{"kty":"EC","d":"AA","kid":"k"}`, "[key 1 (kid 'k'): it has PRIVATE or secret members, so whoever can read the JWKS can sign tokens; replace the key and publish only its public part]"},
		{"a weak RSA key", `{"kty":"RSA","n":"_w","e":"AQAB"}`, "[key 1: the RSA key has 8 bits; use one of at least 2048 (RFC 7518 §3.3)]"},
		{"alg of another key", changed(`"ES256"`, `"RS256"`), "its alg 'RS256' is not one of its key; correct it or leave it out]"},
		{"key_ops of another type", changed(`{`, `{"key_ops":1,`), "its member key_ops has a value of another type (RFC 7517 §4); correct it in the JWKS]"},
		{"many", strings.Repeat("1,", maxKeyFaults+1) + "1", "key 5: it is not a JSON object; correct it in the JWKS 2 more keys]"},
	} {
		_, faults, err := parseTrustedJWKS([]byte(`{"keys":[` + test.key + `]}`))
		if got := fmt.Sprint(faults); err != nil || !strings.HasSuffix(got, test.want) {
			t.Errorf("%s: %s, %v; want %s", test.name, got, err, test.want)
		}
	}
}

// TestFaultsOfTrustedKeysAreToldOnce checks that faults are told when they change, over
// another configuration too.
func TestFaultsOfTrustedKeysAreToldOnce(t *testing.T) {
	v := newVerifierTest(t)
	s := newKeyServer(t, nil)
	keys := s.issuer(t, "", s.URL+"/keys", v.clock.Now)
	for i, step := range []struct {
		keys string
		want int
	}{{`{"kty":"oct","k":"AA"}`, 1}, {`{"kty":"oct","k":"AAAA"}`, 0}, {`{"kty":"oct","k":"AA"},1`, 2}, {``, 0}, {`1`, 1}} {
		s.documents.Store(&map[string]string{"/keys": `{"keys":[` + step.keys + `]}`})
		if _, err := keys.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if told := keys.NewFaults(); len(told) != step.want {
			t.Errorf("step %d: told %q", i, told)
		}
		if told := keys.NewFaults(); told != nil {
			t.Errorf("step %d: told again: %q", i, told)
		}
		next := s.issuer(t, "", s.URL+"/keys", v.clock.Now)
		next.TakeOver(keys)
		if told := next.NewFaults(); told != nil {
			t.Errorf("step %d: told again by the next configuration: %q", i, told)
		}
		keys = next
	}
}
