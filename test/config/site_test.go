package config_test

import (
	"slices"
	"strings"
	"testing"
)

const (
	warnOpen      = "site is partly open"
	warnRewrite   = "path matcher sees the path after a rewrite"
	warnReached   = "directive is never reached"
	warnTwoRealms = "two realms must both admit a request"
	warnVerifies  = "site verifies certificates in the handshake, where callers learn no reason; use 'mode request'"
	warnSilent    = "site requests no client certificates; add 'tls { client_auth { mode request } }'"
	warnPlain     = "plain HTTP has no client certificates; serve the site over HTTPS"
	warnStatus    = "status page is open to everyone"
	warnNoHost    = "no site of this server serves the issuer's host"
)

// loadSites loads sites with two realms. @TLS@ is the TLS settings of a site that
// requests certificates.
func loadSites(t *testing.T, options, sites string) loaded {
	t.Helper()
	dir := loadFiles(t)
	return loadCaddyfile(t, fillLoadTest(dir, strings.ReplaceAll(`{
	auto_https off
	`+options+`
	mtls {
		client a {
			thumbprint SHA256
		}
		issuer https://auth.example.com
	}
	mtls second {
		client b {
			thumbprint OTHER256
		}
	}
}
`+sites, "@TLS@", "tls DIR/client.pem DIR/client.key {\nclient_auth {\nmode request\n}\n}")))
}

// wantSiteWarnings checks which kinds of warnings there were, in any order.
func wantSiteWarnings(t *testing.T, result loaded, want ...string) {
	t.Helper()
	if result.err != nil {
		t.Fatal(result.err)
	}
	got := result.warnings()
	slices.Sort(got)
	got = slices.Compact(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestOrderWarnings checks the warnings about directives that requests can get past,
// and that usual configurations have none.
func TestOrderWarnings_D3_S7(t *testing.T) {
	for _, test := range []struct {
		name, options, site string
		want                []string
	}{
		{name: "whole site", site: "mtls_auth\nreverse_proxy localhost:1"},
		{name: "optional", site: "mtls_auth {\noptional\n}\nreverse_proxy localhost:1"},
		{name: "php", site: "mtls_auth\nphp_fastcgi localhost:1\nfile_server"},
		{name: "front controller", site: "mtls_auth\ntry_files {path} /index.php\nreverse_proxy localhost:1"},
		{
			name: "matcher before a front controller", site: "mtls_auth /admin/*\ntry_files {path} /index.php\nreverse_proxy localhost:1",
			want: []string{warnOpen, warnRewrite},
		},
		{
			name: "rewrite of what is guarded", site: "rewrite /old/* /index.php?{uri}\nmtls_auth /old/*\nreverse_proxy localhost:1",
			want: []string{warnOpen, warnRewrite},
		},
		{
			name: "rewrite of something else", site: "rewrite /old/* /new\nmtls_auth /admin/*\nreverse_proxy /admin/* localhost:1",
		},
		{
			name: "strip prefix", site: "uri strip_prefix /api\nmtls_auth /api/*\nreverse_proxy localhost:1",
			want: []string{warnOpen, warnRewrite},
		},
		{
			name: "handle after a rewrite", site: "try_files {path} /index.php\nhandle /admin/* {\nmtls_auth\nreverse_proxy localhost:1\n}\nhandle {\nreverse_proxy localhost:2\n}",
			want: []string{warnRewrite},
		},
		{
			name: "all but a path, after a rewrite", site: "try_files {path} /public/index.html\n@private not path /public/*\nmtls_auth @private\nfile_server",
		},
		{
			name: "handles that are all guarded, after a rewrite", site: "try_files {path} /index.php\nhandle /admin/* {\nmtls_auth {\nallow a\n}\nreverse_proxy localhost:1\n}\nhandle {\nmtls_auth\nreverse_proxy localhost:2\n}",
		},
		{
			name: "route before a rewrite", site: "route {\nmtls_auth /admin/*\nmtls_auth {\noptional\n}\ntry_files {path} /index.php\nreverse_proxy localhost:1\n}",
		},
		{name: "handle_path", site: "handle_path /api/* {\nmtls_auth /v1/*\nreverse_proxy /v1/* localhost:1\n}"},
		{name: "some paths", site: "mtls_auth /admin/*\nreverse_proxy localhost:1", want: []string{warnOpen}},
		{name: "some paths of files", site: "mtls_auth /admin/*\nfile_server", want: []string{warnOpen}},
		{name: "the same paths", site: "@api path /api/* /v1/*\nmtls_auth @api\nreverse_proxy @api localhost:1\nrespond 404"},
		{name: "other paths on purpose", site: "mtls_auth /api/*\nreverse_proxy /api/* localhost:1\nreverse_proxy /public/* localhost:2"},
		{name: "all but a path", site: "@private not path /health\nmtls_auth @private\nreverse_proxy localhost:1"},
		{name: "handles", site: "handle /api/* {\nmtls_auth\nreverse_proxy localhost:1\n}\nhandle {\nreverse_proxy localhost:2\n}"},
		{name: "handle, and the rest of the site", site: "handle /api/* {\nmtls_auth\nreverse_proxy localhost:1\n}\nreverse_proxy localhost:2", want: []string{warnOpen}},
		{name: "bearer at some paths", site: "mtls_bearer /admin/*\nreverse_proxy localhost:1", want: []string{warnOpen}},
		{name: "order last", options: "order mtls_auth last", site: "mtls_auth\nreverse_proxy /api/* localhost:1", want: []string{warnOpen}},
		{name: "order last after everything", options: "order mtls_auth last", site: "mtls_auth\nreverse_proxy localhost:1", want: []string{warnOpen, warnReached}},
		{name: "route in the wrong order", site: "route {\nreverse_proxy localhost:1\nmtls_auth\n}", want: []string{warnOpen, warnReached}},
		{name: "answer before", site: "route {\nrespond hello\nmtls_auth\n}", want: []string{warnReached}},
		{name: "health check before", site: "route {\nrespond /health 200\nmtls_auth\nreverse_proxy localhost:1\n}"},
		{name: "issuer after everything", site: "route {\nreverse_proxy localhost:1\nmtls_issuer\n}", want: []string{warnReached, warnNoHost}},
		{name: "forward_auth first", site: "route {\nforward_auth localhost:1 {\nuri /\n}\nmtls_auth\nreverse_proxy localhost:2\n}"},
		{name: "two realms", site: "mtls_auth\nmtls_auth {\nrealm second\n}\nreverse_proxy localhost:1", want: []string{warnTwoRealms}},
		{name: "two realms, one optional", site: "mtls_auth\nmtls_auth {\nrealm second\noptional\n}\nreverse_proxy localhost:1"},
		{name: "two realms for their own paths", site: "handle /a/* {\nmtls_auth\nreverse_proxy localhost:1\n}\nhandle /b/* {\nmtls_auth {\nrealm second\n}\nreverse_proxy localhost:1\n}"},
		{name: "two realms, one for some paths", site: "mtls_auth\nmtls_auth /b/* {\nrealm second\n}\nreverse_proxy localhost:1", want: []string{warnTwoRealms}},
		{name: "one realm twice", site: "mtls_auth\nmtls_bearer\nreverse_proxy localhost:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, host := range []string{"https://api.example.com", "https://"} { // a site may be one route, or several
				want := slices.DeleteFunc(slices.Clone(test.want), func(warning string) bool { return warning == warnNoHost && host == "https://" })
				wantSiteWarnings(t, loadSites(t, test.options, host+" {\n@TLS@\n"+test.site+"\n}"), want...)
			}
		})
	}
}

// TestStatusPageWarning checks the warning about a status page that anybody can read.
func TestStatusPageWarning(t *testing.T) {
	const basic = "basic_auth {\noperator $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n"
	for _, test := range []struct {
		name, site string
		want       []string
	}{
		{"alone", "mtls_status", []string{warnStatus}},
		{"at a path", "mtls_status /status\nrespond hello", []string{warnStatus}},
		{"behind mtls_auth", "mtls_status\nmtls_auth", nil},
		{"at a path behind mtls_auth", "mtls_status /status\nmtls_auth\nreverse_proxy localhost:1", nil},
		{"behind basic_auth", "mtls_status\n" + basic, nil},
		{"behind forward_auth", "mtls_status\nforward_auth localhost:1 {\nuri /\n}", nil},
		{"behind mtls_bearer", "mtls_bearer {\naudience https://auth.example.com\n}\nmtls_status", nil},
		{"behind optional", "mtls_status\nmtls_auth {\noptional\n}", []string{warnStatus}},
		{"behind report_only", "mtls_status\nmtls_auth {\nreport_only\n}", []string{warnStatus}},
		{"behind a guard of the same path", "@status path /status /status/*\nmtls_status @status\nmtls_auth @status", nil},
		{"behind a guard of more paths", "mtls_status /admin/status\nbasic_auth /admin/* {\noperator $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}", nil},
		{"behind a guard of another path", "mtls_status /status\nmtls_auth /admin/*\nreverse_proxy /admin/* localhost:1", []string{warnStatus}},
		{"behind a guard of fewer requests", "@some {\npath /status\nmethod POST\n}\nmtls_status /status\nmtls_auth @some", []string{warnStatus}},
		{"before the guard", "route {\nmtls_status\nmtls_auth\n}", []string{warnStatus, warnReached}},
		{"beside the guard", "handle /status {\nmtls_status\n}\nhandle {\nmtls_auth\nreverse_proxy localhost:1\n}", []string{warnStatus}},
		{"with the guard", "handle /status {\nmtls_status\nmtls_auth\n}\nhandle {\nreverse_proxy localhost:1\n}", nil},
		{"behind an answer", "route {\nmtls_auth\nrespond hello\nmtls_status\n}", []string{warnReached}},
		{"on 127.0.0.1", "bind 127.0.0.1 ::1\nmtls_status", nil},
		{"on localhost", "bind localhost\nmtls_status", nil},
		{"on a socket", "bind unix//tmp/mtls-status.sock\nmtls_status", nil},
		{"on a socket of systemd", "bind fd/3\nmtls_status", []string{warnStatus}},
		{"in handle_errors", "mtls_auth\nhandle_errors {\nmtls_status\n}", []string{warnStatus}},
		{"in handle_errors behind basic_auth", "mtls_auth\nhandle_errors {\n" + basic + "mtls_status\n}", nil},
		{"in handle_response", "reverse_proxy localhost:1 {\nhandle_response {\nmtls_status\n}\n}", []string{warnStatus}},
		{"in handle_response behind a guard", "mtls_auth\nreverse_proxy localhost:1 {\nhandle_response {\nroute {\nmtls_status\n}\n}\n}", nil},
		{"in intercept", "intercept {\nhandle_response {\nmtls_status\n}\n}\nrespond hello", []string{warnStatus}},
		{"after a rewrite past the guard", "route {\nbasic_auth /status {\noperator $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\nrewrite /other /status\nmtls_status /status\n}", []string{warnStatus}},
		{"with a rewrite behind the guard", "handle /status {\nroute {\n" + basic + "rewrite /status /other\nmtls_status\n}\n}", nil},
		{"on one address of many", "bind 127.0.0.1 192.0.2.1\nmtls_status", []string{warnStatus}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantSiteWarnings(t, loadSites(t, "", "https://api.example.com {\n@TLS@\n"+test.site+"\n}"), test.want...)
		})
	}
}

// TestNamedRouteWarnings checks that what a site invokes counts as the site's.
func TestNamedRouteWarnings(t *testing.T) {
	const routes = "&(guard) {\nmtls_auth\n}\n&(upstream) {\nreverse_proxy localhost:1\n}\n"
	wantSiteWarnings(t, loadSites(t, "", routes+"https://api.example.com {\n@TLS@\ninvoke guard\ninvoke upstream\n}"))
	wantSiteWarnings(t, loadSites(t, "", routes+"https://api.example.com {\n@TLS@\ninvoke /admin/* guard\ninvoke upstream\n}\nhttps://other.example.com {\n@TLS@\nmtls_auth\n}"), warnOpen)
}

// TestSiteTLSWarnings checks the warnings about what a site asks its callers for.
func TestSiteTLSWarnings(t *testing.T) {
	const withCA = "tls DIR/client.pem DIR/client.key {\nclient_auth {\n%\ntrust_pool file DIR/ca.pem\n}\n}\n"
	withMode := func(mode string) string { return strings.Replace(withCA, "%", mode, 1) }
	const silent = "tls DIR/client.pem DIR/client.key\n"
	for _, test := range []struct {
		name, sites string
		want        []string
	}{
		{"asks", "https://api.example.com {\n@TLS@\nmtls_auth\n}", nil},
		{"capitals and wildcards", "https://*.Example.com {\n@TLS@\nmtls_auth\n}", nil},
		{"another site asks", "https://api.example.com {\n@TLS@\nmtls_auth\n}\nhttps://b.example.com {\n" + silent + "mtls_auth\n}", []string{warnSilent}},
		{"a wildcard asks, the host does not", "https://*.example.com {\n@TLS@\nrespond hello\n}\nhttps://b.example.com {\n" + silent + "mtls_bearer {\naudience https://auth.example.com\n}\n}", []string{warnSilent}},
		{"plain HTTP", "http://api.example.com {\nmtls_auth\n}", []string{warnPlain}},
		{"tokens of others over plain HTTP", "http://api.example.com {\nmtls_bearer {\ntrust_issuer https://as.example.com {\naudience a\n}\n}\n}", []string{warnPlain}},
		{"verify_if_given", "https://api.example.com {\n" + withMode("mode verify_if_given") + "mtls_auth\n}", []string{warnVerifies}},
		{"require_and_verify", "https://api.example.com {\n" + withMode("mode require_and_verify") + "mtls_auth\n}", []string{warnVerifies}},
		{"no mode, which verifies", "https://api.example.com {\n" + withMode("") + "mtls_auth\n}", []string{warnVerifies}},
		{"request with a trust pool", "https://api.example.com {\n" + withMode("mode request") + "mtls_auth\n}", nil},
		{"require with a trust pool", "https://api.example.com {\n" + withMode("mode require") + "mtls_auth\n}", nil},
		{"issuer at its host", "https://auth.example.com {\n@TLS@\nmtls_issuer\n}", nil},
		{"issuer at a wildcard", "https://*.example.com {\n@TLS@\nmtls_issuer\n}", nil},
		{"issuer at every host", "https:// {\n@TLS@\nmtls_issuer\n}", nil},
		{"issuer at another host", "https://other.example.com {\n@TLS@\nmtls_issuer\n}", []string{warnNoHost}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantSiteWarnings(t, loadSites(t, "", test.sites), test.want...)
		})
	}
}
