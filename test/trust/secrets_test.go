package trust_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestAddressesAreShownWithoutSecrets_S10 checks that neither the password nor a value of
// the query of any address that is fetched is in the log, the metrics, the answers of
// the admin API or an error.
func TestAddressesAreShownWithoutSecrets_S10(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.AdminOn = true
	closed := "127.0.0.1:" + rig.ClosedPort(t)
	address := func(n int, path string) string {
		user, query := fmt.Sprintf("SECRETUSER%d", n), fmt.Sprintf("SECRETVALUE%d", n)
		r.Secrets = append(r.Secrets, user, query)
		return "https://" + user + ":SECRETPASSWORD@" + closed + path + "?token=" + query
	}
	r.Secrets = append(r.Secrets, "SECRETPASSWORD")
	realm := `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	revocation {
		crl ` + address(1, "/a.crl") + `
		ocsp ` + address(2, "/") + `
	}
	client billing {
		subject CN=billing
	}
	client j {
		jwks ` + address(3, "/j.json") + `
	}
}
`
	sites := `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	mtls_bearer {
		trust_issuer https://` + closed + ` {
			jwks_uri ` + address(4, "/keys") + `
			audience a
			id_prefix p:
		}
	}
	respond ok
}
`
	r.Start(realm, sites)
	billing := r.Caller(t, "h1", r.Leaves[len(r.Leaves)-1])
	got := billing.Get("https://api.test/")
	var shown strings.Builder
	for _, place := range []string{"/a.crl?token=…", "/j.json?token=…", "/keys?token=…"} {
		r.Logs.Wait(t, "the failure of "+place, func(entry rig.LogEntry) bool {
			return strings.Contains(entry.Str("place"), "https://"+closed+place) && strings.Contains(entry.Str("error"), "connection refused")
		})
	}
	r.Logs.Wait(t, "the failure of the responder", func(entry rig.LogEntry) bool {
		return strings.Contains(fmt.Sprint(entry), "https://"+closed+"/?token=…")
	})
	fmt.Fprintln(&shown, got.Body, got.Header, rig.Metrics(r, t))
	for _, path := range []string{"/mtls/status", "/mtls/realms", "/mtls/realms/default", "/mtls/realms/default/clients", "/mtls/refusals"} {
		_, answer := rig.Ask(r, t, "GET", path, "")
		fmt.Fprintln(&shown, answer)
	}
	// addresses that are wrong
	for _, bad := range []string{"crl ftp://SECRETUSER1:SECRETPASSWORD@a.example/", "ocsp https://SECRETUSER1:SECRETPASSWORD@a.example:port/", "crl https://SECRETUSER1:SECRET PASSWORD@a.example/"} {
		if err := r.Load(strings.Replace(realm, "revocation {", "revocation {\n"+bad, 1), sites); err == nil {
			t.Errorf("%s loads", bad)
		} else {
			fmt.Fprintln(&shown, err)
		}
	}
	for _, bad := range []string{"jwks_uri http://SECRETUSER1:SECRETPASSWORD@a.example/", "jwks_uri {env.MTLS_TEST_ADDRESS}"} {
		t.Setenv("MTLS_TEST_ADDRESS", "ldap://SECRETUSER1:SECRETPASSWORD@a.example/")
		if err := r.Load(realm, strings.Replace(sites, "audience a", "audience a\n}\ntrust_issuer https://b.example {\n"+bad+"\naudience b\nid_prefix b:", 1)); err == nil {
			t.Errorf("%s loads", bad)
		} else {
			fmt.Fprintln(&shown, err)
		}
	}
	for _, secret := range []string{"SECRETPASSWORD", "SECRETUSER", "SECRETVALUE"} {
		if at := strings.Index(shown.String(), secret); at >= 0 {
			t.Errorf("%s is shown: …%.200s", secret, shown.String()[max(0, at-100):])
		}
	}
}
