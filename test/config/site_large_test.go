package config_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestLargeSites checks that the warnings about sites are right for configurations that
// only programs write. It ends only if each handler is read a bounded number of times:
// some of these routes unfold into 2^30 and more.
func TestLargeSites(t *testing.T) {
	const (
		config = `{"admin":{"disabled":true},"apps":{"mtls":{"realms":{"default":{"clients":[{"client_id":"a","x509_thumbprints":["SHA256"]}]}}},` +
			`"http":{"servers":{"s":{"automatic_https":{"disable":true},"listen":[":8443"],"named_routes":{NAMED},"routes":[ROUTES]}}}}}`
		auth, proxy = `{"handler":"mtls_auth"}`, `{"handler":"reverse_proxy","upstreams":[{"dial":"localhost:1"}]}`
	)
	many := func(n int, text string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = strings.NewReplacer("AUTH", auth, "PROXY", proxy, "NEXT", fmt.Sprint(i+1), "N", fmt.Sprint(i)).Replace(text)
		}
		return strings.Join(parts, ",")
	}
	handle := func(handlers ...string) string { return `{"handle":[` + strings.Join(handlers, ",") + `]}` }
	invoke := func(name string) string { return `{"handler":"invoke","name":"` + name + `"}` }
	const nest = 300
	for _, test := range []struct {
		name, named, routes string
		want                []string
	}{
		{name: "paths", routes: many(3000, `{"match":[{"path":["/N/*"]}],"handle":[{"handler":"rewrite","uri":"/x"},AUTH,PROXY]}`)},
		{name: "headers", routes: many(3000, `{"match":[{"header":{"X-A":["N"]}}],"handle":[AUTH,PROXY]}`)},
		{name: "handlers behind one guard", routes: handle(auth) + "," + many(3000, `{"match":[{"path":["/N"]}],"handle":[{"handler":"vars"},PROXY]}`)},
		{name: "the last one open", routes: many(1000, `{"match":[{"path":["/N/*"]}],"handle":[AUTH,PROXY]}`) + "," + handle(proxy), want: []string{warnOpen}},
		{name: "deep", routes: handle(strings.Repeat(`{"handler":"subroute","routes":[{"handle":[`, nest) + auth + "," + proxy + strings.Repeat("]}]}", nest))},
		{
			name: "a route that invokes itself", routes: handle(auth, invoke("self")),
			named: `"self":{"match":[{"path":["/x/*"]}],"handle":[{"handler":"rewrite","strip_path_prefix":"/x"},` + invoke("self") + "," + proxy + `]}`,
		},
		{
			name: "routes that invoke each other", routes: handle(invoke("ping")),
			named: `"ping":{"match":[{"path":["/x/*"]}],"handle":[` + invoke("pong") + "," + invoke("pong") + "," + proxy + `]},"pong":` + handle(auth, invoke("ping"), invoke("ping")),
		},
		{
			name: "routes that invoke the next one twice", routes: handle(auth, invoke("r0")),
			named: many(30, `"rN":{"handle":[{"handler":"invoke","name":"rNEXT"},{"handler":"invoke","name":"rNEXT"}]}`) + `,"r30":` + handle(proxy),
		},
		{name: "nothing in it", routes: `{"match":[null,{}],"handle":[` + auth + `,{"handler":"subroute","routes":[null]},` + proxy + `]},{"match":null,"handle":null},null,` + handle(invoke("nowhere"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := loadJSON(t, fillLoadTest(loadFiles(t), strings.NewReplacer("NAMED", test.named, "ROUTES", test.routes).Replace(config)))
			wantSiteWarnings(t, result, append(test.want, warnPlain)...)
		})
	}
}
