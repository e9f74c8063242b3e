package tokens

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestReservedClaims(t *testing.T) {
	for name := range strings.FieldsSeq("iss sub aud exp nbf iat jti client_id azp scope scp cnf typ act may_act nonce auth_time acr amr sid events " +
		"Sub SUB Client_ID CNF") {
		if !ReservedClaim(name) {
			t.Errorf("%s is free", name)
		}
		if _, err := PrepareClaims(map[string]any{name: "x"}); err == nil || !strings.Contains(err.Error(), "'"+name+"' is reserved") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	for _, name := range []string{"tenant", "subject", "aud2", "x.iss"} {
		if ReservedClaim(name) {
			t.Errorf("%s is reserved", name)
		}
	}
}

func TestValidClaimName(t *testing.T) {
	for name, want := range map[string]bool{
		"tenant": true, "A.b-c_9": true, "": false, "a b": false, "a\"b": false, "é": false, "a/b": false, "a:b": false, "a\x00": false,
	} {
		if ValidClaimName(name) != want {
			t.Errorf("ValidClaimName(%q) is %v", name, !want)
		}
	}
	if _, err := PrepareClaims(map[string]any{`x":1,"sub`: "admin"}); err == nil || !strings.Contains(err.Error(), "A-Z a-z 0-9") {
		t.Errorf("error is %v", err)
	}
}

func TestPrepareClaims(t *testing.T) {
	claims, err := PrepareClaims(map[string]any{
		"tenant": `ac"me`, "level": 3, "tags": []string{"a", "b"}, "raw": json.RawMessage(` {"x": 9007199254740993} `), "none": nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `"level":3,"none":null,"raw":{"x":9007199254740993},"tags":["a","b"],"tenant":"ac\"me"`
	if string(claims.members) != want {
		t.Errorf("got %s, want %s", claims.members, want)
	}
	for _, bad := range []any{math.Inf(1), json.RawMessage(`1,"sub":"admin"`), func() {}} {
		if _, err := PrepareClaims(map[string]any{"tenant": bad}); err == nil || !strings.Contains(err.Error(), "claim 'tenant'") {
			t.Errorf("%v: error is %v", bad, err)
		}
	}
}
