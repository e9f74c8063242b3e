package tokens

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// maxNumericDate is the end of the year 9999; later dates are invalid.
const maxNumericDate = 253402300799

// maxClientID is the longest client id of another server, in bytes.
const maxClientID = 200

const thumbprintMethod = "x5t#S256"

// checkClaims checks the claims of a token whose signature has been verified.
func (v *Verifier) checkClaims(raw []byte) (*VerifiedToken, error) {
	members, err := strictMembers(raw)
	if err != nil {
		return nil, refuseToken(TokenMalformed, "the claims: %.200q", err.Error())
	}
	t := &VerifiedToken{Claims: members}
	if err := t.readClaims(members, v.config.ClientIDClaim); err != nil {
		return nil, refuseToken(TokenMalformed, "the claims: %v", err)
	}
	if t.Issuer != v.config.Issuer {
		return nil, refuseToken(TokenIssuer, "it is from issuer %.200q, want %s", t.Issuer, v.config.Issuer)
	}
	isOurs := func(audience string) bool { return slices.Contains(v.config.Audiences, audience) }
	if len(v.config.Audiences) > 0 && !slices.ContainsFunc(t.Audience, isOurs) {
		return nil, refuseToken(TokenAudience, "it is for %.200q, want %q", strings.Join(t.Audience, " "), v.config.Audiences)
	}
	if err := v.checkExpiry(t); err != nil {
		return nil, err
	}
	latest := v.config.Now().Add(leeway + v.config.Slack)
	if t.IssuedAt.After(latest) || t.NotBefore.After(latest) {
		return nil, refuseToken(TokenNotYetValid, "iat is %s and nbf %s; compare the clocks", dateText(t.IssuedAt), dateText(t.NotBefore))
	}
	cnf, bound := members["cnf"]
	if !bound {
		if !v.config.AllowUnbound {
			return nil, refuseToken(TokenUnbound, "it has no cnf, so whoever holds it could use it")
		}
		return t, nil
	}
	if t.Thumbprint, err = thumbprintOf(cnf); err != nil {
		return nil, refuseToken(TokenConfirmation, "the claim cnf: %v", err)
	}
	return t, nil
}

func (v *Verifier) checkExpiry(t *VerifiedToken) error {
	if !v.config.Now().Before(t.Expires.Add(v.config.Slack)) {
		return refuseToken(TokenExpired, "it expired at %s", dateText(t.Expires))
	}
	return nil
}

func dateText(t time.Time) string {
	if t.IsZero() {
		return "not given"
	}
	return t.UTC().Format(time.RFC3339)
}

// readClaims reads the claims into t and checks their types.
func (t *VerifiedToken) readClaims(members map[string]json.RawMessage, clientIDClaim string) error {
	if clientIDClaim == "" {
		clientIDClaim = "client_id"
		if _, ok := members[clientIDClaim]; !ok {
			clientIDClaim = "azp"
		}
	}
	var err error
	for name, into := range map[string]*string{"iss": &t.Issuer, "sub": &t.Subject, "jti": &t.ID} {
		if *into, err = stringMember(members, name); err != nil {
			return err
		}
	}
	for name, into := range map[string]*time.Time{"exp": &t.Expires, "iat": &t.IssuedAt, "nbf": &t.NotBefore} {
		if *into, err = numericDate(members, name); err != nil {
			return err
		}
	}
	if t.ClientID, err = stringMember(members, clientIDClaim); err != nil {
		return err
	}
	if err := checkTokenClientID(t.ClientID, clientIDClaim); err != nil {
		return err
	}
	if t.Expires.IsZero() {
		return errors.New("'exp' is missing")
	}
	if t.Audience, err = stringsIn(members["aud"], "aud"); err != nil {
		return err
	}
	if len(t.Audience) == 0 {
		return errors.New("'aud' is missing")
	}
	t.Scopes, err = scopesOf(members)
	return err
}

// checkTokenClientID refuses characters that RFC 6749 appendix A.1 does not
// allow, because the id is written to headers and logs.
func checkTokenClientID(id, claim string) error {
	if id == "" {
		return fmt.Errorf("'%s' is missing", claim)
	}
	unsafe := func(r rune) bool { return r < ' ' || r > '~' }
	if len(id) > maxClientID || strings.ContainsFunc(id, unsafe) || strings.TrimSpace(id) != id {
		return fmt.Errorf("'%s' is %.80q: want at most %d characters of printable ASCII", claim, id, maxClientID)
	}
	return nil
}

// numericDate parses a NumericDate (RFC 7519 §2), which may have a fraction.
func numericDate(members map[string]json.RawMessage, name string) (time.Time, error) {
	raw, ok := members[name]
	if !ok {
		return time.Time{}, nil
	}
	var seconds *float64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds == nil || *seconds <= 0 || *seconds > maxNumericDate {
		return time.Time{}, fmt.Errorf("'%s' is not a time in seconds since 1970", name)
	}
	whole, fraction := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// stringsIn parses a string or an array of strings.
func stringsIn(raw json.RawMessage, name string) ([]string, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var many []*string
	if raw[0] != '[' {
		many = make([]*string, 1)
		raw = slices.Concat([]byte("["), raw, []byte("]"))
	}
	if err := json.Unmarshal(raw, &many); err != nil {
		return nil, fmt.Errorf("'%s' is neither a string nor an array of strings", name)
	}
	values := make([]string, len(many))
	for i, value := range many {
		if value == nil {
			return nil, fmt.Errorf("'%s' contains null", name)
		}
		values[i] = *value
	}
	return values, nil
}

// scopesOf returns the scopes of a token: those of `scope` (RFC 9068 §2.2.3),
// or of `scp` if there is none, each as a string or an array.
func scopesOf(members map[string]json.RawMessage) ([]string, error) {
	name := "scope"
	if _, ok := members[name]; !ok {
		name = "scp"
	}
	raw := members[name]
	values, err := stringsIn(raw, name)
	if err != nil {
		return nil, err
	}
	if len(raw) > 0 && raw[0] == '"' {
		values = strings.FieldsFunc(values[0], func(r rune) bool { return r == ' ' })
	}
	for _, scope := range values {
		if syntax.CheckScope(scope) != nil {
			return nil, fmt.Errorf("'%s' contains %.80q, which is not a scope", name, scope)
		}
	}
	return values, nil
}

// thumbprintOf returns the certificate thumbprint of a confirmation (RFC 8705
// §3.1). A token with another method as well requires a proof that is not
// checked here, so it is refused.
func thumbprintOf(cnf json.RawMessage) (string, error) {
	members, err := jsonObject(cnf)
	if err != nil {
		return "", err
	}
	for name := range members {
		if name != thumbprintMethod {
			return "", fmt.Errorf("it has the method %.80q, which is not supported", name)
		}
	}
	thumbprint, err := stringMember(members, thumbprintMethod)
	if err != nil {
		return "", err
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(thumbprint)
	if len(thumbprint) != thumbprintLength || err != nil || len(sum) != 32 {
		return "", fmt.Errorf("x5t#S256 is not base64url of a SHA-256 hash, %d characters", thumbprintLength)
	}
	return thumbprint, nil
}
