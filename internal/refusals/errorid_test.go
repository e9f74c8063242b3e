package refusals

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestErrorIDIn(t *testing.T) {
	const id = "7gsx4nkp2"
	for _, pasted := range []string{
		id, "7GSX4NKP2", "  7gsx4nkp2\r\n", `"7gsx4nkp2"`, "'7gsx4nkp2'", "„7gsx4nkp2“", "`7gsx4nkp2`.", "7gsx 4nkp2", "7gs-x4n-kp2", "\ufeff7gsx4nkp2",
		`error_id="7gsx4nkp2"`, "error id: 7gsx4nkp2", "Error ID 7gsx4nkp2, please help", "ERROR-ID=7GSX4NKP2",
		"certificate_refused (error id: 7gsx4nkp2)",
		`ClientCertificate realm="default", error="certificate_refused", error_id="7gsx4nkp2"`,
		`{"title":"Unauthorized","status":401,"error":"certificate_refused","error_id":"7gsx4nkp2"}`,
		`{"error":"invalid_client","error_description":"client authentication failed (error id: 7gsx4nkp2)"}`,
		`{"level":"debug","logger":"http.log.error","err_id":"7gsx4nkp2","err_trace":"x"}`,
		`"{\"error_id\":\"7gsx4nkp2\"}"`,
	} {
		if got, err := ErrorIDIn(pasted); err != nil || got != id {
			t.Errorf("%q: %q, %v", pasted, got, err)
		}
	}
	for pasted, want := range map[string]string{
		"":                                   "no error id",
		`""`:                                 "no error id",
		"k3f9":                               "'k3f9' cannot be an error id; it has 9 characters",
		"7gsx4nkp22":                         "cannot be an error id",
		"7gsx4nkpo":                          "without l and o",
		"7gsx4nkp1":                          "cannot be an error id",
		"7gsx4nkpа":                          "cannot be an error id", // Cyrillic
		"certificate_refused":                "'certificaterefused' cannot be",
		"error id: none":                     "'none' cannot be",
		"../../config/":                      "cannot be an error id",
		"\x1b[31m7gsx4nkp2":                  "cannot be an error id",
		strings.Repeat("7gsx4nkp2 ", 10_000): "the text has 100000 bytes",
	} {
		if got, err := ErrorIDIn(pasted); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %q, %v, want %q", pasted, got, err, want)
		}
	}
	for range 100 { // in case another Caddy has others
		if made := caddyhttp.Error(http.StatusUnauthorized, nil).ID; made != "" {
			if got, err := ErrorIDIn(made); err != nil || got != made {
				t.Fatalf("%q: %q, %v", made, got, err)
			}
		}
	}
}

func FuzzErrorIDIn(f *testing.F) {
	for _, seed := range []string{"7gsx4nkp2", `error_id="7GSX4NKP2"`, "err_id:", "error id: \u202e7gsx4nkp2", "Kelvin \u212a3f9abcde"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, pasted string) {
		id, err := ErrorIDIn(pasted)
		if err == nil && (len(id) != errorIDLength || strings.Trim(id, errorIDLetters) != "") || err != nil && id != "" {
			t.Errorf("%q: %q, %v", pasted, id, err)
		}
	})
}
