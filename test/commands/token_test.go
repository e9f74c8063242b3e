package commands_test

import (
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

const tokenRealm = `mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client sensor-7 {
		subject CN=sensor-7
		scopes telemetry invoices
	}
	issuer https://localhost:@HTTPS@ {
		resource https://api.example.com {
			scopes telemetry
		}
		resource https://b.example.com {
			scopes invoices
		}
	}
}`

const tokenSites = `
https://localhost:@HTTPS@ {
	import mtls
	mtls_issuer
}
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://api.example.com
	}
	reverse_proxy @UP@
}
`

// TestTokenCommand checks the command with a real issuer: what it prints, and that an API
// takes the token.
func TestTokenCommand(t *testing.T) {
	r := rig.New(t)
	r.Issue("sensor-7")
	r.SelfSigned("stranger")
	r.Start(tokenRealm, tokenSites)
	issuer := "https://localhost:" + r.HTTPS
	flags := " --cacert server-ca.pem --issuer " + issuer + " --cert sensor-7.pem --key sensor-7.key "

	out := rig.MustShell(r, t, "caddy mtls token --scope telemetry"+flags)
	for _, want := range []string{
		"token endpoint    " + issuer + "/connect/mtls/token\n", "client            sensor-7\n", "scope             telemetry\n", "verified          yes\n",
		`"typ": "at+jwt"`, `"aud": "https://api.example.com"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	answer := rig.JSON(t, rig.MustShell(r, t, "caddy mtls token --json --resource https://b.example.com"+flags))
	if answer["verified"] != true || answer["scope"] != "invoices" || rig.Member(t, answer, "claims")["client_id"] != "sensor-7" {
		t.Errorf("%v", answer)
	}

	token := rig.MustShell(r, t, "caddy mtls token --bare --resource https://api.example.com"+flags)
	r.Secrets = append(r.Secrets, strings.TrimSpace(token))
	if strings.Count(token, ".") != 2 || strings.Count(token, "\n") != 1 {
		t.Errorf("%q", token)
	}
	if got, installed := tool(r, t, `curl -sS --cacert server-ca.pem --cert sensor-7.pem --key sensor-7.key --resolve api.test:`+r.HTTPS+`:127.0.0.1 -H "Authorization: Bearer $(caddy mtls token --bare --resource https://api.example.com`+flags+`)" https://api.test:`+r.HTTPS+"/"); installed && !strings.Contains(got, `"X-Client-Id":["sensor-7"]`) {
		t.Error(got)
	}

	out, problems, status := rig.Shell(r, t, "caddy mtls token --cacert server-ca.pem --issuer "+issuer+" --cert stranger.pem --key stranger.key")
	line := r.Logs.Wait(t, "the refusal", func(e rig.LogEntry) bool { return e.Str("msg") == "client refused" })
	if status != 1 || out != "" || !strings.Contains(problems, "certificate  ok      asked for, and 'CN=stranger' sent\n") ||
		!strings.Contains(problems, "'caddy mtls why "+line.Str("error_id")+"' says why") || strings.Contains(problems, "Error:") {
		t.Errorf("%d %s\n%s", status, out, problems)
	}
	out, _, status = rig.Shell(r, t, "caddy mtls token --json --scope nonsense"+flags)
	if failure := rig.JSON(t, out); status != 1 || failure["error"] != "invalid_scope" || failure["status"] != 400.0 || failure["error_id"] == "" {
		t.Errorf("%d %s", status, out)
	}
}

// TestTokenReadsIdentities checks the forms of certificate and key, and what is said about
// those that do not fit.
func TestTokenReadsIdentities(t *testing.T) {
	r := rig.New(t)
	r.Start(tokenRealm, tokenSites)
	r.Write("ca.key", r.CA.KeyPEM())
	r.Write("password.txt", []byte("secret\n"))
	r.Write("wrong.txt", []byte("other\n"))
	rig.MustShell(r, t, "caddy mtls issue sensor-7 --ca-cert clients-ca.pem --ca-key ca.key --password-file password.txt && cat sensor-7.key sensor-7.pem > both.pem")
	rig.MustShell(r, t, "caddy mtls issue other --self-signed")
	common := "caddy mtls token --bare --scope telemetry --cacert server-ca.pem --issuer https://localhost:" + r.HTTPS
	for _, flags := range []string{"--cert both.pem", "--cert sensor-7.pem --key sensor-7.key", "--cert sensor-7.p12 --password-file password.txt"} {
		if out := rig.MustShell(r, t, common+" "+flags); strings.Count(out, ".") != 2 {
			t.Errorf("%s: %s", flags, out)
		}
	}
	for flags, want := range map[string]string{
		"--cert sensor-7.pem":                           "no private key",
		"--cert sensor-7.pem --key other.key":           "the private key is not that of the certificate 'CN=sensor-7'",
		"--cert sensor-7.p12":                           "has a password; pass it with --password-file",
		"--cert sensor-7.p12 --password-file wrong.txt": "wrong password",
		"--cert gone.pem":                               "gone.pem",
		"--cert both.pem --cacert wrong.txt":            "wrong.txt",
		"":                                              "\"cert\" not set",
		"--cert both.pem --issuer http://localhost":     "is not an https URL",
		"--cert both.pem --timeout 0s":                  "use a positive duration",
		"--cert both.pem --bare --json":                 "none of the others can be",
	} {
		if _, problems, status := rig.Shell(r, t, common+" "+flags); status == 0 || !strings.Contains(problems, want) {
			t.Errorf("%s: exit status %d, %s, want %q", flags, status, problems, want)
		}
	}
}
