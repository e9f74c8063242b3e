package auth_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestCertificateExpiring checks that admitted callers learn how many days their
// certificate has left, once it is close to its end, and that nobody else learns that.
func TestCertificateExpiring(t *testing.T) {
	r := rig.New(t)
	lasting := func(left time.Duration) testpki.Option {
		return testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(left))
	}
	const day = 24 * time.Hour
	soon := r.Issue("soon", testpki.CommonName("billing"), lasting(10*day+time.Hour))
	last := r.Issue("last", testpki.CommonName("billing"), lasting(time.Hour))
	later := r.Issue("later", testpki.CommonName("billing"), lasting(31*day))
	r.SelfSigned("sensor")
	stranger := r.SelfSigned("stranger", lasting(day))
	const name = "X-Days" // the upstream sends it, too
	const upstream = "\nhttp://days.test:@HTTP@ {\nbind 127.0.0.1\nheader X-Days 1\nrespond ok\n}\n"
	realm := strings.Replace(rig.IssuerRealm(""), "mtls {", "mtls {\ncertificate_expiring {\nresponse_header "+name+"\n}", 1)
	site := func(host, directive string) string {
		return "https://" + host + ":@HTTPS@ {\nimport mtls\n" + directive + "\nreverse_proxy 127.0.0.1:@HTTP@ {\nheader_up Host days.test\n}\n}\n"
	}
	r.Start(realm, site("api.test", "mtls_auth {\noptional\n}")+site("public.test", "mtls_auth {\nreport_only\n}")+site("other.test", "mtls_bearer {\naudience https://auth.test\n}")+
		site("metrics.test", "mtls_auth\n@fails path /fails\nreverse_proxy @fails 127.0.0.1:1\nrespond /empty 204")+upstream+rig.IssuerSite)
	token := rig.AccessToken(r, t, soon, "billing.partner")
	for _, protocol := range rig.Protocols {
		for _, tc := range []struct {
			what, url string
			leaf      *testpki.Leaf
			status    int
			want      string
			options   []func(*http.Request)
		}{
			{"soon", "https://api.test/", soon, http.StatusOK, "10", nil},
			{"on the last day", "https://api.test/", last, http.StatusOK, "0", nil},
			{"not yet", "https://api.test/", later, http.StatusOK, "1", nil}, // that of the upstream
			{"optional, without a certificate", "https://api.test/", nil, http.StatusOK, "1", nil},
			{"refused", "https://api.test/", stranger, http.StatusUnauthorized, "", nil},
			{"report_only, admitted", "https://public.test/", soon, http.StatusOK, "10", nil},
			{"report_only, refused", "https://public.test/", stranger, http.StatusOK, "1", nil},
			{"a bound token", "https://other.test/", soon, http.StatusOK, "10", []func(*http.Request){rig.Bearer(token)}},
			{"a refused token", "https://other.test/", last, http.StatusUnauthorized, "", []func(*http.Request){rig.Bearer(token)}},
			{"an error of the upstream", "https://metrics.test/fails", soon, http.StatusBadGateway, "10", nil},
			{"no body", "https://metrics.test/empty", soon, http.StatusNoContent, "10", nil},
		} {
			got := r.Caller(t, protocol, tc.leaf).Get(tc.url, tc.options...).WantStatus(t, tc.status)
			if values := got.Header.Values(name); strings.Join(values, ", ") != tc.want {
				t.Errorf("%s, %s: %s is %q, want %q", protocol, tc.what, name, values, tc.want)
			}
		}
		issued := r.Caller(t, protocol, soon).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")).WantStatus(t, http.StatusOK)
		if values := issued.Header.Values(name); strings.Join(values, ", ") != "10" {
			t.Errorf("%s, a token: %s is %q, want 10", protocol, name, values)
		}
		r.Secrets = append(r.Secrets, rig.JSON(t, issued.Body)["access_token"].(string))
	}
}
