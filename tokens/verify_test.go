package tokens

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// members is a JSON object. A nil value removes a member.
type members map[string]any

// testKeys finds keys by their kid.
type testKeys map[string]keyring.PublicKey

func (k testKeys) PublicKey(kid string, _ keyring.Algorithm) (keyring.PublicKey, bool) {
	key, ok := k[kid]
	return key, ok
}

func (k testKeys) Ready() bool { return true }

func (k testKey) publicKey() keyring.PublicKey {
	return keyring.PublicKey{ID: k.ID, Algorithm: k.Algorithm, Key: k.private.Public()}
}

// verifierTest signs tokens and verifies them.
type verifierTest struct {
	key    testKey
	clock  *testenv.Clock
	config VerifierConfig
}

func newVerifierTest(t testing.TB) *verifierTest {
	v := &verifierTest{key: exampleKey(t), clock: testenv.NewClock()}
	v.config = VerifierConfig{
		Issuer: testURL, Keys: testKeys{v.key.ID: v.key.publicKey()}, Audiences: []string{"api"}, Now: v.clock.Now,
	}
	return v
}

func (v *verifierTest) verifier(t testing.TB) *Verifier {
	t.Helper()
	verifier, err := NewVerifier(v.config)
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

// claims returns the claims of a good token, with changes.
func (v *verifierTest) claims(changes members) members {
	now := testenv.Now.Unix()
	claims := members{
		"iss": testURL, "sub": "a", "aud": "api", "exp": now + 60, "iat": now, "jti": "1", "client_id": "a",
		"scope": "x y", "cnf": members{thumbprintMethod: strings.Repeat("A", thumbprintLength)},
	}
	return change(claims, changes)
}

func (v *verifierTest) header(changes members) members {
	return change(members{"typ": "at+jwt", "alg": string(v.key.Algorithm), "kid": v.key.ID}, changes)
}

func change(object, changes members) members {
	for name, value := range changes {
		object[name] = value
		if value == nil {
			delete(object, name)
		}
	}
	return object
}

func encodePart(t testing.TB, part any) string {
	t.Helper()
	raw, ok := part.(string)
	if !ok {
		encoded, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(encoded)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(raw))
}

// sign returns a token with a header and claims, each members or text.
func (v *verifierTest) sign(t testing.TB, header, claims any) string {
	t.Helper()
	input := encodePart(t, header) + "." + encodePart(t, claims)
	signature, err := jwt.GetSigningMethod(string(v.key.Algorithm)).Sign(input, v.key.private)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// reasonOf returns the reason of a refusal, "" for a good token.
func reasonOf(t testing.TB, err error) TokenReason {
	t.Helper()
	if err == nil {
		return ""
	}
	var refusal *TokenError
	if !errors.As(err, &refusal) || !slices.Contains(TokenReasons, refusal.Reason) || refusal.Detail == "" {
		t.Fatalf("the error is not of the closed list: %v", err)
	}
	return refusal.Reason
}

func (v *verifierTest) want(t *testing.T, token string, want TokenReason) *VerifiedToken {
	t.Helper()
	verified, err := v.verifier(t).Verify(token)
	if got := reasonOf(t, err); got != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	if (verified == nil) != (err != nil) {
		t.Errorf("got %v and %v", verified, err)
	}
	return verified
}

func TestVerifyGoodToken_R34(t *testing.T) {
	v := newVerifierTest(t)
	now := testenv.Now.Unix()
	token := v.want(t, v.sign(t, v.header(nil), v.claims(members{"tenant": "acme", "nbf": now})), "")
	if token == nil {
		t.FailNow()
	}
	if string(token.Claims["tenant"]) != `"acme"` || len(token.Claims) != 11 {
		t.Errorf("claims are %s", token.Claims)
	}
	token.Claims, token.key = nil, nil
	at := time.Unix(now, 0)
	want := VerifiedToken{
		ID: "1", KeyID: v.key.ID, Issuer: testURL, Subject: "a", ClientID: "a", Audience: []string{"api"}, Scopes: []string{"x", "y"},
		IssuedAt: at, NotBefore: at, Expires: at.Add(time.Minute), Thumbprint: strings.Repeat("A", 43), algorithm: keyring.EdDSA,
	}
	if fmt.Sprint(*token) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", *token, want)
	}
}

func TestEveryAlgorithmVerifies_R30(t *testing.T) {
	for _, alg := range keyring.Algorithms() {
		v := newVerifierTest(t)
		v.key = mustKey(t, alg)
		v.config.Keys = fixedKeys(v.key)
		v.want(t, v.sign(t, v.header(nil), v.claims(nil)), "")
		v.config.Algorithms = slices.DeleteFunc(keyring.Algorithms(), func(a keyring.Algorithm) bool { return a == alg })
		v.want(t, v.sign(t, v.header(nil), v.claims(nil)), TokenAlgorithm)
	}
}

// TestOwnIssuer_R34 verifies what the issuer of this package mints.
func TestOwnIssuer_R34(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{Audience: []string{"api"}})
	v := newVerifierTest(t)
	v.config.Keys = issuer.keys
	minted := mustMint(t, issuer, newGrant("x"), newRequest(""))
	token := v.want(t, minted.AccessToken, "")
	if token == nil || token.ID != minted.ID || token.ClientID != "mtls.client" {
		t.Errorf("got %+v", token)
	}
}

func TestVerifyHeaders_R34(t *testing.T) {
	for name, test := range map[string]struct {
		header any // changes, or the text
		want   TokenReason
	}{
		"as it is":                          {members{}, ""},
		"typ in full":                       {members{"typ": "application/at+jwt"}, ""},
		"typ has no case":                   {members{"typ": "Application/AT+JWT"}, ""},
		"R30 typ JWT":                       {members{"typ": "JWT"}, TokenType},
		"no typ":                            {members{"typ": nil}, TokenType},
		"typ of a gateway":                  {members{"typ": "gateway+jwt"}, TokenType},
		"typ of another":                    {members{"typ": "at+jwt2"}, TokenType},
		"typ twice prefixed":                {members{"typ": "application/application/at+jwt"}, TokenType},
		"typ is not a string":               {members{"typ": []string{"at+jwt"}}, TokenMalformed},
		"typ is null":                       {`{"alg":"EdDSA","kid":"x","typ":null}`, TokenMalformed},
		"R30 none":                          {members{"alg": "none"}, TokenAlgorithm},
		"R30 None":                          {members{"alg": "None"}, TokenAlgorithm},
		"no alg":                            {members{"alg": nil}, TokenAlgorithm},
		"HMAC":                              {members{"alg": "HS256"}, TokenAlgorithm},
		"alg has case":                      {members{"alg": "eddsa"}, TokenAlgorithm},
		"alg of another key":                {members{"alg": "ES256"}, TokenAlgorithm},
		"alg is not a string":               {members{"alg": 1}, TokenMalformed},
		"kid of nobody":                     {members{"kid": "nobody"}, TokenKeyUnknown},
		"no kid":                            {members{"kid": nil}, TokenKeyUnknown},
		"kid is not a string":               {members{"kid": 1}, TokenMalformed},
		"kid without end":                   {members{"kid": strings.Repeat("x", 513)}, TokenMalformed},
		"crit":                              {members{"crit": []string{"exp"}}, TokenMalformed},
		"empty crit":                        {members{"crit": []string{}}, TokenMalformed},
		"b64":                               {members{"b64": true}, TokenMalformed},
		"zip":                               {members{"zip": "DEF"}, TokenMalformed},
		"enc":                               {members{"enc": "A256GCM"}, TokenMalformed},
		"nested":                            {members{"cty": "JWT"}, TokenMalformed},
		"nested, in full":                   {members{"cty": "application/jwt"}, TokenMalformed},
		"another content":                   {members{"cty": "x"}, ""},
		"jku, x5u, x5c, jwk are ignored":    {members{"jku": "https://evil.example", "x5u": "https://evil.example", "x5c": []string{"x"}, "jwk": members{"kty": "oct", "k": "AA"}}, ""},
		"alg twice":                         {`{"alg":"none","typ":"at+jwt","kid":"KID","alg":"EdDSA"}`, TokenMalformed},
		"kid twice, escaped":                {`{"alg":"EdDSA","typ":"at+jwt","kid":"x","\u006bid":"KID"}`, TokenMalformed},
		"names have case":                   {`{"ALG":"none","TYP":"x","Kid":"x","alg":"EdDSA","typ":"at+jwt","kid":"KID"}`, ""},
		"names in another case do not help": {`{"Alg":"EdDSA","Typ":"at+jwt","Kid":"KID"}`, TokenType},
		"not UTF-8":                         {"{\"alg\":\"keyring.EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"x\":\"\xff\"}", TokenMalformed},
		"an array":                          {`["alg"]`, TokenMalformed},
		"null":                              {`null`, TokenMalformed},
		"nothing":                           {``, TokenMalformed},
		"two objects":                       {`{"alg":"EdDSA","typ":"at+jwt","kid":"KID"}{}`, TokenMalformed},
		"twice below the top level":         {`{"alg":"EdDSA","typ":"at+jwt","kid":"KID","jwk":{"x":1,"x":2}}`, ""},
		"many members":                      {manyMembers(13), ""},
		"too many members":                  {manyMembers(14), TokenMalformed},
		"2 KiB":                             {`{"alg":"EdDSA","typ":"at+jwt","kid":"KID","x":"` + strings.Repeat("x", 1536-len(`{"alg":"EdDSA","typ":"at+jwt","kid":"KID","x":""}`)-40) + `"}`, ""},
		"more than 2 KiB":                   {`{"alg":"EdDSA","typ":"at+jwt","kid":"KID","x":"` + strings.Repeat("x", 1536-len(`{"alg":"EdDSA","typ":"at+jwt","kid":"KID","x":""}`)-39) + `"}`, TokenMalformed},
		"nested a little":                   {`{"alg":"EdDSA","typ":"at+jwt","kid":"KID","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, ""},
		"nested deeply":                     {`{"alg":"EdDSA","typ":"at+jwt","kid":"KID","x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, TokenMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifierTest(t)
			header := test.header
			switch given := header.(type) {
			case members:
				header = v.header(given)
			case string:
				header = strings.ReplaceAll(given, "KID", v.key.ID)
			}
			v.want(t, v.sign(t, header, v.claims(nil)), test.want)
		})
	}
}

// manyMembers returns a good header with that many further members.
func manyMembers(more int) string {
	header := `{"alg":"EdDSA","typ":"at+jwt","kid":"KID"`
	for i := range more {
		header += fmt.Sprintf(`,"x%d":0`, i)
	}
	return header + "}"
}

// TestHostileTokensCostLittle_S2 checks that a token is refused by the first check that
// it fails, and that none of what comes later has been looked at.
func TestHostileTokensCostLittle_S2(t *testing.T) {
	v := newVerifierTest(t)
	header, signature := encodePart(t, v.header(nil)), strings.Repeat("A", 86)
	claims := strings.Repeat("A", 12<<10) // not JSON
	numbers := `[0` + strings.Repeat(",0", 4000) + `]`
	for name, test := range map[string]struct {
		token string
		want  TokenReason
	}{
		"long header":        {encodePart(t, `{"x":`+numbers+`}`) + ".e30." + signature, TokenMalformed},
		"typ":                {encodePart(t, v.header(members{"typ": "x"})) + "." + claims + "." + claims[:100], TokenType},
		"alg":                {encodePart(t, v.header(members{"alg": "x"})) + "." + claims + "." + claims[:100], TokenAlgorithm},
		"kid":                {encodePart(t, v.header(members{"kid": "x"})) + "." + claims + "." + claims[:100], TokenKeyUnknown},
		"long signature":     {header + ".e30." + claims, TokenSignature},
		"forged":             {header + "." + claims + "." + signature, TokenSignature},
		"larger than 16 KiB": {strings.Repeat("!", 1<<20), TokenMalformed},
	} {
		v.want(t, test.token, test.want)
		verifier := v.verifier(t)
		if allocs := testing.AllocsPerRun(100, func() { _, _ = verifier.Verify(test.token) }); allocs > 100 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func TestTextThatIsNotAToken(t *testing.T) {
	v := newVerifierTest(t)
	good := v.sign(t, v.header(nil), v.claims(nil))
	head, rest, _ := strings.Cut(good, ".")
	body, signature, _ := strings.Cut(rest, ".")
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", signature[len(signature)-1])
	for name, test := range map[string]struct {
		token string
		want  TokenReason
	}{
		"good":                     {good, ""},
		"empty":                    {"", TokenMalformed},
		"dots":                     {"..", TokenMalformed},
		"two parts":                {head + "." + body, TokenMalformed},
		"four parts":               {good + ".", TokenMalformed},
		"encrypted":                {good + "..", TokenMalformed},
		"no signature":             {head + "." + body + ".", TokenSignature},
		"part of the signature":    {good[:len(good)-2], TokenSignature},
		"another body":             {head + "." + encodePart(t, v.claims(members{"sub": "b"})) + "." + signature, TokenSignature},
		"another header":           {encodePart(t, v.header(members{"cty": "y"})) + "." + rest, TokenSignature},
		"a space":                  {good + " ", TokenMalformed},
		"a line break":             {head + "\n." + rest, TokenMalformed},
		"with padding":             {good + "==", TokenMalformed},
		"signature, not canonical": {good[:len(good)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1]), TokenMalformed},
		"too large":                {good + strings.Repeat("A", MaxTokenSize), TokenMalformed},
		"long signature":           {good + strings.Repeat("A", 12<<10), TokenSignature},
		"long signature, garbage":  {good + strings.Repeat("!", 12<<10), TokenSignature},
		"claims are garbage":       {head + ".!." + signature, TokenMalformed},
		"claims are not canonical": {head + ".A." + signature, TokenSignature},
		"many dots":                {strings.Repeat(".", MaxTokenSize), TokenMalformed},
		"none":                     {encodePart(t, v.header(members{"alg": "none"})) + "." + body + ".", TokenAlgorithm},
	} {
		t.Run(name, func(t *testing.T) { v.want(t, test.token, test.want) })
	}
}

// TestAlgorithmConfusion_R34 signs with the public key, which everybody knows.
func TestAlgorithmConfusion_R34(t *testing.T) {
	v := newVerifierTest(t)
	rs := mustKey(t, keyring.RS256)
	der, err := x509.MarshalPKIXPublicKey(rs.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	v.config.Keys = testKeys{"kid": rs.publicKey()}
	for _, secret := range [][]byte{publicPEM, rs.publicDoc()} {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(v.claims(nil)))
		maps.Copy(token.Header, map[string]any{"typ": "at+jwt", "kid": "kid"})
		signed, err := token.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		v.want(t, signed, TokenAlgorithm)
	}
	// a key is used only with its own algorithm, even if it could be used with
	// another
	v.key = mustKey(t, keyring.PS256)
	v.want(t, v.sign(t, v.header(members{"kid": "kid"}), v.claims(nil)), TokenAlgorithm)
	// and a key with an algorithm of another type is refused
	p384 := mustKey(t, keyring.ES384)
	for alg, key := range map[keyring.Algorithm]crypto.PublicKey{
		keyring.ES256: p384.private.Public(), keyring.RS256: p384.private.Public(), keyring.EdDSA: rs.private.Public(), keyring.PS256: "x",
	} {
		v.config.Keys = testKeys{"kid": {ID: "kid", Algorithm: alg, Key: key}}
		v.want(t, v.sign(t, v.header(members{"kid": "kid", "alg": string(alg)}), v.claims(nil)), TokenAlgorithm)
	}
}

// TestRecheck checks that a verified token ends with its time and its key.
func TestRecheck(t *testing.T) {
	v := newVerifierTest(t)
	keys := v.config.Keys.(testKeys)
	token := v.want(t, v.sign(t, v.header(nil), v.claims(nil)), "")
	verifier := v.verifier(t)
	if got := reasonOf(t, verifier.Recheck(token)); got != "" {
		t.Errorf("at once: %s", got)
	}
	v.clock.Advance(59*time.Second + 999*time.Millisecond)
	if got := reasonOf(t, verifier.Recheck(token)); got != "" {
		t.Errorf("before the end: %s", got)
	}
	v.clock.Advance(time.Second)
	if got := reasonOf(t, verifier.Recheck(token)); got != TokenExpired {
		t.Errorf("after the end: %q", got)
	}
	v.clock.Advance(-time.Minute)
	key := keys[v.key.ID]
	keys[v.key.ID] = keyring.PublicKey{ID: v.key.ID, Algorithm: keyring.ES256, Key: mustKey(t, keyring.ES256).private.Public()}
	if got := reasonOf(t, verifier.Recheck(token)); got != TokenKeyUnknown {
		t.Errorf("with another key: %q", got)
	}
	delete(keys, v.key.ID)
	if got := reasonOf(t, verifier.Recheck(token)); got != TokenKeyUnknown {
		t.Errorf("without the key: %q", got)
	}
	keys[v.key.ID] = key
	if got := reasonOf(t, verifier.Recheck(token)); got != "" {
		t.Errorf("with the key again: %s", got)
	}
}

func TestRecheckAllocatesNothing(t *testing.T) {
	for _, alg := range keyring.Algorithms() {
		v := newVerifierTest(t)
		v.key = mustKey(t, alg)
		v.config.Keys = fixedKeys(v.key)
		token := v.want(t, v.sign(t, v.header(nil), v.claims(nil)), "")
		verifier := v.verifier(t)
		if allocs := testing.AllocsPerRun(100, func() { _ = verifier.Recheck(token) }); allocs > 0 {
			t.Errorf("%s: %v allocations", alg, allocs)
		}
	}
}

// TestTokensBeforeKeysAreRead checks that tokens are not judged before the
// keys have been read.
func TestTokensBeforeKeysAreRead(t *testing.T) {
	v := newVerifierTest(t)
	storage := newStorage(t)
	storage.OnList = func(context.Context, string) error { return errors.New("down") }
	v.config.Keys = managedKeys(t, storage, v.clock)
	v.want(t, v.sign(t, v.header(nil), v.claims(nil)), TokenKeysUnavailable)
	v.config.Keys = fixedKeys(mustKey(t, keyring.ES256))
	v.want(t, v.sign(t, v.header(nil), v.claims(nil)), TokenKeyUnknown)
}

func TestDetailsAreBoundedAndEscaped_E3(t *testing.T) {
	v := newVerifierTest(t)
	hostile := "\n\u202e" + strings.Repeat("x", 5000)
	for _, token := range []string{
		v.sign(t, v.header(members{"typ": hostile}), v.claims(nil)), v.sign(t, v.header(members{"alg": hostile}), v.claims(nil)),
		v.sign(t, v.header(members{"kid": hostile[:400]}), v.claims(nil)), v.sign(t, v.header(members{hostile: 1}), v.claims(members{"iss": hostile})),
		v.sign(t, v.header(nil), v.claims(members{"aud": hostile})), v.sign(t, v.header(nil), v.claims(members{"client_id": hostile})),
		v.sign(t, v.header(nil), v.claims(members{"scope": hostile})), v.sign(t, v.header(nil), v.claims(members{"cnf": members{hostile: 1}})),
		v.sign(t, v.header(nil), `{"`+hostile[2:]+`":1,"`+hostile[2:]+`":1}`),
	} {
		_, err := v.verifier(t).Verify(token)
		if reasonOf(t, err) == "" || len(err.Error()) > 700 || strings.ContainsAny(err.Error(), "\n\u202e") {
			t.Errorf("%d bytes: %.900q", len(err.Error()), err.Error())
		}
	}
}

// FuzzVerify verifies any signed header and claims, and any text. An accepted
// token satisfies every rule, and every error has a reason of the closed list.
func FuzzVerify(f *testing.F) {
	f.Fuzz(func(t *testing.T, header, claims, token string) {
		v := newVerifierTest(t)
		verifier := v.verifier(t)
		signed := v.sign(t, header, claims)
		for _, candidate := range []string{signed, token} {
			got, err := verifier.Verify(candidate)
			if reasonOf(t, err) != "" {
				continue
			}
			if candidate == token && token != signed {
				t.Fatalf("a token that is not ours is good: %s", token)
			}
			var said struct {
				Audience any             `json:"aud"`
				CNF      json.RawMessage `json:"cnf"`
			}
			var head struct {
				Type string `json:"typ"`
			}
			if err := errors.Join(json.Unmarshal([]byte(claims), &said), json.Unmarshal([]byte(header), &head)); err != nil || len(said.CNF) == 0 ||
				!isMediaType(head.Type, TypeAccessToken) {
				t.Fatalf("%s %s is good: %v", header, claims, err)
			}
			if got.Issuer != testURL || !slices.Contains(got.Audience, "api") || !got.Expires.After(testenv.Now) || len(got.Thumbprint) != 43 ||
				got.ClientID == "" || got.IssuedAt.After(testenv.Now.Add(leeway)) || got.NotBefore.After(testenv.Now.Add(leeway)) {
				t.Fatalf("%s is good: %+v", claims, got)
			}
			if err := verifier.Recheck(got); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := newVerifierTest(b)
	v.key = mustKey(b, keyring.ES256)
	v.config.Keys = testKeys{v.key.ID: v.key.publicKey()}
	token := v.sign(b, v.header(nil), v.claims(nil))
	verifier := v.verifier(b)
	b.Run("Verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := verifier.Verify(token); err != nil {
				b.Fatal(err)
			}
		}
	})
	verified, err := verifier.Verify(token)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Recheck", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := verifier.Recheck(verified); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHostileToken measures tokens that anybody could send.
func BenchmarkHostileToken(b *testing.B) {
	v := newVerifierTest(b)
	header, claims := encodePart(b, v.header(nil)), strings.Repeat("A", 12<<10)
	verifier := v.verifier(b)
	for name, token := range map[string]string{
		"numbers":        encodePart(b, `{"x":[0`+strings.Repeat(",0", 700)+`]}`) + ".e30.AAAA",
		"many_members":   encodePart(b, `{`+strings.Repeat(`"":0,`, 280)+`}`) + ".e30.AAAA",
		"long_header":    encodePart(b, `{"x":[0`+strings.Repeat(",0", 4000)+`]}`) + ".e30.AAAA",
		"long_claims":    header + "." + claims + ".AAAA",
		"long_signature": header + ".e30." + claims,
		"garbage":        strings.Repeat("A", MaxTokenSize),
		"forged":         header + "." + claims + "." + strings.Repeat("A", 86),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verifier.Verify(token); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
