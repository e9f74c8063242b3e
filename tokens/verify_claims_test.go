package tokens

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

func TestVerifyClaims_R34(t *testing.T) {
	now := testenv.Now.Unix()
	thumbprint := strings.Repeat("A", 43)
	for name, test := range map[string]struct {
		claims any // changes, or the text
		want   TokenReason
	}{
		"as it is":                        {members{}, ""},
		"iss with a slash":                {members{"iss": testURL + "/"}, TokenIssuer},
		"iss in capitals":                 {members{"iss": strings.ToUpper(testURL)}, TokenIssuer},
		"no iss":                          {members{"iss": nil}, TokenIssuer},
		"iss is an array":                 {members{"iss": []string{testURL}}, TokenMalformed},
		"R34 another aud":                 {members{"aud": "other"}, TokenAudience},
		"aud in capitals":                 {members{"aud": "API"}, TokenAudience},
		"several aud":                     {members{"aud": []string{"other", "api"}}, ""},
		"several other aud":               {members{"aud": []string{"other", "api2"}}, TokenAudience},
		"no aud":                          {members{"aud": nil}, TokenMalformed},
		"empty aud":                       {members{"aud": []string{}}, TokenMalformed},
		"aud with a null":                 {members{"aud": []any{"api", nil}}, TokenMalformed},
		"aud is a number":                 {members{"aud": 1}, TokenMalformed},
		"aud is an object":                {members{"aud": members{"api": 1}}, TokenMalformed},
		"a second left":                   {members{"exp": now + 1}, ""},
		"expires now":                     {members{"exp": now}, TokenExpired},
		"expired":                         {members{"exp": now - 1}, TokenExpired},
		"a fraction left":                 {members{"exp": float64(now) + 0.5}, ""},
		"no exp":                          {members{"exp": nil}, TokenMalformed},
		"exp is text":                     {members{"exp": fmt.Sprint(now + 60)}, TokenMalformed},
		"exp is too large":                {members{"exp": 1e300}, TokenMalformed},
		"exp is negative":                 {members{"exp": -1}, TokenMalformed},
		"exp is null":                     {`{"iss":"https://auth.example.com","exp":null}`, TokenMalformed},
		"FAPI iat 10 s ahead":             {members{"iat": now + 10}, ""},
		"iat 11 s ahead":                  {members{"iat": now + 11}, TokenNotYetValid},
		"FAPI iat more than 60 s ahead":   {members{"iat": now + 61}, TokenNotYetValid},
		"nbf 10 s ahead":                  {members{"nbf": now + 10}, ""},
		"nbf 11 s ahead":                  {members{"nbf": now + 11}, TokenNotYetValid},
		"no iat":                          {members{"iat": nil}, ""},
		"iat is text":                     {members{"iat": "now"}, TokenMalformed},
		"nbf is an object":                {members{"nbf": members{}}, TokenMalformed},
		"no client_id":                    {members{"client_id": nil}, TokenMalformed},
		"azp instead":                     {members{"client_id": nil, "azp": "a"}, ""},
		"client_id is a number":           {members{"client_id": 1}, TokenMalformed},
		"client_id, not azp":              {members{"client_id": "", "azp": "a"}, TokenMalformed},
		"client_id with a line break":     {members{"client_id": "a\nb"}, TokenMalformed},
		"client_id not in ASCII":          {members{"client_id": "ä"}, TokenMalformed},
		"client_id ends with a space":     {members{"client_id": "a "}, TokenMalformed},
		"client_id without end":           {members{"client_id": strings.Repeat("a", 201)}, TokenMalformed},
		"sub is a number":                 {members{"sub": 1}, TokenMalformed},
		"scope as an array":               {members{"scope": []string{"x", "y"}}, ""},
		"scope is a number":               {members{"scope": 1}, TokenMalformed},
		"a scope with a quote":            {members{"scope": `x"y`}, TokenMalformed},
		"a scope with a space, in a list": {members{"scope": []string{"x y"}}, TokenMalformed},
		"R11 no cnf":                      {members{"cnf": nil}, TokenUnbound},
		"cnf is null":                     {`null-cnf`, TokenConfirmation},
		"cnf is text":                     {members{"cnf": thumbprint}, TokenConfirmation},
		"cnf is an array":                 {members{"cnf": []string{thumbprint}}, TokenConfirmation},
		"cnf is empty":                    {members{"cnf": members{}}, TokenConfirmation},
		"R22 another method":              {members{"cnf": members{"jkt": thumbprint}}, TokenConfirmation},
		"R22 another method as well":      {members{"cnf": members{thumbprintMethod: thumbprint, "jkt": thumbprint}}, TokenConfirmation},
		"R22 the method of SHA-1":         {members{"cnf": members{"x5t": strings.Repeat("A", 27)}}, TokenConfirmation},
		"method in another case":          {members{"cnf": members{"x5t#s256": thumbprint}}, TokenConfirmation},
		"R12 with padding":                {members{"cnf": members{thumbprintMethod: thumbprint + "="}}, TokenConfirmation},
		"R12 too short":                   {members{"cnf": members{thumbprintMethod: thumbprint[1:]}}, TokenConfirmation},
		"R12 in hex":                      {members{"cnf": members{thumbprintMethod: strings.Repeat("a", 64)}}, TokenConfirmation},
		"R12 base64, not url":             {members{"cnf": members{thumbprintMethod: "+" + thumbprint[1:]}}, TokenConfirmation},
		"R12 with a line break":           {members{"cnf": members{thumbprintMethod: thumbprint[:42] + "\n"}}, TokenConfirmation},
		"R12 not canonical":               {members{"cnf": members{thumbprintMethod: thumbprint[:42] + "B"}}, TokenConfirmation},
		"R12 null":                        {members{"cnf": members{thumbprintMethod: nil}}, TokenConfirmation},
		"a claim twice":                   {`{"exp":1,"exp":2}`, TokenMalformed},
		"a member of cnf twice":           {`{"cnf":{"x5t#S256":"a","x5t#S256":"b"}}`, TokenMalformed},
		"names have case":                 {members{"EXP": 1, "Iss": "x", "CNF": nil, "Cnf": 1}, ""},
		"an array":                        {`[]`, TokenMalformed},
		"a string":                        {`"x"`, TokenMalformed},
		"null":                            {`null`, TokenMalformed},
		"a token":                         {`eyJhbGciOiJub25lIn0.e30.`, TokenMalformed},
		"nothing":                         {``, TokenMalformed},
		"text after":                      {`{}{}`, TokenMalformed},
		"not UTF-8":                       {"{\"a\":\"\xff\"}", TokenMalformed},
		"larger than a token may be":      {members{"x": strings.Repeat("x", MaxTokenSize)}, TokenMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifierTest(t)
			claims := test.claims
			if given, ok := claims.(members); ok {
				claims = v.claims(given)
			} else if claims == "null-cnf" {
				encoded, err := json.Marshal(v.claims(members{"cnf": nil}))
				if err != nil {
					t.Fatal(err)
				}
				claims = `{"cnf":null,` + string(encoded[1:])
			}
			v.want(t, v.sign(t, v.header(nil), claims), test.want)
		})
	}
}

func TestVerifierSettings(t *testing.T) {
	for name, test := range map[string]struct {
		set            func(*VerifierConfig)
		header, claims members
		want           TokenReason
		clientID       string
		scopes         string
	}{
		"any audience":             {func(c *VerifierConfig) { c.Audiences = nil }, nil, members{"aud": "other"}, "", "a", "[x y]"},
		"any audience, not none":   {func(c *VerifierConfig) { c.Audiences = nil }, nil, members{"aud": nil}, TokenMalformed, "", ""},
		"typ JWT":                  {func(c *VerifierConfig) { c.Type = TypeJWT }, members{"typ": "jwt"}, nil, "", "a", "[x y]"},
		"typ JWT, at+jwt is good":  {func(c *VerifierConfig) { c.Type = TypeJWT }, nil, nil, "", "a", "[x y]"},
		"typ JWT, not gateway+jwt": {func(c *VerifierConfig) { c.Type = TypeJWT }, members{"typ": "gateway+jwt"}, nil, TokenType, "", ""},
		"typ JWT, none":            {func(c *VerifierConfig) { c.Type = TypeJWT }, members{"typ": nil}, nil, TokenType, "", ""},
		"client in sub":            {func(c *VerifierConfig) { c.ClientIDClaim = "sub" }, nil, members{"sub": "s"}, "", "s", "[x y]"},
		"client in appid, absent":  {func(c *VerifierConfig) { c.ClientIDClaim = "appid" }, nil, nil, TokenMalformed, "", ""},
		"unbound":                  {func(c *VerifierConfig) { c.AllowUnbound = true }, nil, members{"cnf": nil}, "", "a", "[x y]"},
		"unbound, but wrong":       {func(c *VerifierConfig) { c.AllowUnbound = true }, nil, members{"cnf": members{"jkt": "x"}}, TokenConfirmation, "", ""},
		"leeway":                   {nil, nil, members{"iat": testenv.Now.Unix() + 10}, "", "a", "[x y]"},
		"no leeway for the end":    {nil, nil, members{"exp": testenv.Now.Unix()}, TokenExpired, "", ""},
		"scp":                      {nil, nil, members{"scope": nil, "scp": []string{"z"}}, "", "a", "[z]"},
		"scp as text":              {nil, nil, members{"scope": nil, "scp": " z  x"}, "", "a", "[z x]"},
		"scope before scp":         {nil, nil, members{"scope": "", "scp": "z"}, "", "a", "[]"},
		"no scope":                 {nil, nil, members{"scope": nil}, "", "a", "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifierTest(t)
			if test.set != nil {
				test.set(&v.config)
			}
			token := v.want(t, v.sign(t, v.header(test.header), v.claims(test.claims)), test.want)
			if token != nil && (token.ClientID != test.clientID || fmt.Sprint(token.Scopes) != test.scopes) {
				t.Errorf("client %s with %v", token.ClientID, token.Scopes)
			}
		})
	}
	for want, set := range map[string]func(*VerifierConfig){
		"an issuer and its keys":           nil,
		"token type 'id' is not supported": func(c *VerifierConfig) { c.Type = "id" },
		"signing algorithm 'none'":         func(c *VerifierConfig) { c.Algorithms = []keyring.Algorithm{"none"} },
		"signing algorithm 'HS256'":        func(c *VerifierConfig) { c.Algorithms = []keyring.Algorithm{keyring.ES256, "HS256"} },
	} {
		v := newVerifierTest(t)
		if set == nil {
			v.config = VerifierConfig{}
		} else {
			set(&v.config)
		}
		if _, err := NewVerifier(v.config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
