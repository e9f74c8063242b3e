package sites

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// warningsOf returns the warnings about a server with these routes.
func warningsOf(t *testing.T, routes, named string) []observer.LoggedEntry {
	t.Helper()
	var server caddyhttp.Server
	if err := json.Unmarshal([]byte(`{"routes":`+routes+`,"named_routes":`+named+`}`), &server); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	for _, site := range Of(&server, "default") {
		site.warnAboutOrder(zap.New(core))
		site.directives()
	}
	return logs.All()
}

// TestManyRoutes checks that thousands of routes are one warning of each kind.
func TestManyRoutes(t *testing.T) {
	var handles []string
	for i := range 3000 {
		handles = append(handles, fmt.Sprintf(`{"group":"g","match":[{"path":["/x%d/*"]}],"handle":[{"handler":"mtls_auth"},{"handler":"reverse_proxy"}]}`, i))
	}
	logged := warningsOf(t, `[{"handle":[{"handler":"rewrite","uri":"/y"}]},`+strings.Join(handles, ",")+`,{"group":"g","handle":[{"handler":"reverse_proxy"}]}]`, `{}`)
	if len(logged) != 1 || logged[0].ContextMap()["all_paths"] != int64(3000) || len(logged[0].ContextMap()["paths"].([]any)) != maxShownPaths {
		t.Errorf("logged %v", logged)
	}
}

// TestOddRoutes checks that no valid JSON stops the walk or keeps it from ending.
func TestOddRoutes(t *testing.T) {
	deep := strings.Repeat(`{"handler":"subroute","routes":[{"handle":[`, 1000) + `{"handler":"mtls_auth"}` + strings.Repeat(`]}]}`, 1000)
	for name, test := range map[string][2]string{
		"no routes":              {`[]`, `{}`},
		"null":                   {`[{"handle":[null]},{"handle":null,"match":null}]`, `{"a":null}`},
		"no handler":             {`[{"handle":[{},{"handler":"subroute"},{"handler":"subroute","routes":null}]}]`, `{}`},
		"a name that is unknown": {`[{"handle":[{"handler":"invoke","name":"nobody"},{"handler":"invoke"},{"handler":"invoke","name":7}]}]`, `{}`},
		"routes of odd types":    {`[{"handle":[{"handler":"other","routes":7},{"handler":"reverse_proxy","handle_response":7},{"handler":"mtls_auth","optional":"x"}]}]`, `{}`},
		"odd matchers":           {`[{"match":[{"path":7},{"host":null},null],"handle":[{"handler":"mtls_auth"}]}]`, `{}`},
		"named routes in a ring": {`[{"handle":[{"handler":"invoke","name":"a"}]}]`, `{"a":{"handle":[{"handler":"invoke","name":"b"},{"handler":"mtls_auth"},{"handler":"invoke","name":"b"}]},"b":{"handle":[{"handler":"invoke","name":"a"}]}}`},
		"deep":                   {`[{"handle":[` + deep + `]}]`, `{}`},
	} {
		t.Run(name, func(t *testing.T) { warningsOf(t, test[0], test[1]) })
	}
}
