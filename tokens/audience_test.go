package tokens

import (
	"slices"
	"strings"
	"testing"
)

// outcome is the scope and audience of a token, or the code of the error.
type outcome struct {
	scope string
	aud   []string
	code  string
}

type grantCase struct {
	grant *Grant
	req   TokenRequest
	want  outcome
}

func runGrantCases(t *testing.T, cfg IssuerConfig, cases map[string]grantCase) {
	t.Helper()
	issuer := newTestIssuer(t, cfg)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got outcome
			token, err := issuer.Mint(t.Context(), tc.grant, tc.req)
			if err != nil {
				got.code = err.Code
			} else {
				got.scope, got.aud = token.Scope, token.Audience
			}
			if got.scope != tc.want.scope || !slices.Equal(got.aud, tc.want.aud) || got.code != tc.want.code {
				t.Errorf("got %+v, want %+v (%v)", got, tc.want, err)
			}
			if err != nil {
				return
			}
			_, claims := verify(t, issuer, token.AccessToken)
			scope, hasScope := claims["scope"]
			if hasScope != (tc.want.scope != "") || hasScope && scope != tc.want.scope {
				t.Errorf("the scope claim is %v", claims["scope"])
			}
		})
	}
}

const (
	orders  = "https://orders.example.com"
	billing = "https://billing.example.com/v1?x=1"
	legacy  = "legacy-api"
)

func TestScopesWithoutResources(t *testing.T) {
	g := newGrant("api1", "telemetry", "admin")
	withDefault := newGrant("api1", "telemetry", "admin")
	withDefault.DefaultScopes = []string{"telemetry"}
	wrongDefault := newGrant("api1")
	wrongDefault.DefaultScopes = []string{"admin"}
	self := []string{testURL}
	invalid := outcome{code: CodeInvalidScope}

	runGrantCases(t, IssuerConfig{}, map[string]grantCase{
		"one":                         {g, newRequest("api1"), outcome{"api1", self, ""}},
		"several, in their order":     {g, newRequest("telemetry api1"), outcome{"telemetry api1", self, ""}},
		"runs of spaces":              {g, newRequest("  api1   telemetry "), outcome{"api1 telemetry", self, ""}},
		"duplicates":                  {g, newRequest("api1 telemetry api1"), outcome{"api1 telemetry", self, ""}},
		"omitted: all":                {g, newRequest(""), outcome{"api1 telemetry admin", self, ""}},
		"only spaces: omitted":        {g, newRequest("   "), outcome{"api1 telemetry admin", self, ""}},
		"omitted: the default":        {withDefault, newRequest(""), outcome{"telemetry", self, ""}},
		"beyond the default":          {withDefault, newRequest("admin"), outcome{"admin", self, ""}},
		"a default without the right": {wrongDefault, newRequest(""), invalid},
		"no scopes at all":            {newGrant(), newRequest(""), outcome{"", self, ""}},
		"unknown":                     {g, newRequest("api9"), invalid},
		"one unknown":                 {g, newRequest("api1 api9"), invalid},
		"another client's":            {newGrant("api1"), newRequest("admin"), invalid},
		"of a client without scopes":  {newGrant(), newRequest("api1"), invalid},
		"upper case":                  {g, newRequest("API1"), invalid},
		"tab":                         {g, newRequest("api1\ttelemetry"), invalid},
		"quote":                       {g, newRequest(`api1"`), invalid},
		"line break":                  {g, newRequest("api1\ntelemetry"), invalid},
		"resource, none declared":     {g, newRequest("api1", orders), outcome{code: CodeInvalidTarget}},
	})
}

func TestAudienceSetting(t *testing.T) {
	g := newGrant("api1")
	runGrantCases(t, IssuerConfig{Audience: []string{"api"}}, map[string]grantCase{
		"one": {g, newRequest("api1"), outcome{"api1", []string{"api"}, ""}},
	})
	runGrantCases(t, IssuerConfig{Audience: []string{"a", "b"}}, map[string]grantCase{
		"several": {g, newRequest("api1"), outcome{"api1", []string{"a", "b"}, ""}},
	})
}

var apis = []Resource{
	{Name: orders, Scopes: []string{"orders.read", "orders.write"}},
	{Name: billing, Scopes: []string{"billing"}},
	{Name: legacy, Scopes: []string{"legacy"}},
}

func TestResources_R35(t *testing.T) {
	g := newGrant("orders.read", "orders.write", "billing", "legacy", "misc")
	withDefault := newGrant("orders.read", "billing")
	withDefault.DefaultScopes = []string{"billing"}
	listed := newGrant("orders.read", "billing")
	listed.Resources = []string{billing}
	bare := newGrant()
	bare.Resources = []string{orders}
	target, scope := outcome{code: CodeInvalidTarget}, outcome{code: CodeInvalidScope}

	runGrantCases(t, IssuerConfig{Resources: apis}, map[string]grantCase{
		"narrows to its scopes":          {g, newRequest("", orders), outcome{"orders.read orders.write", []string{orders}, ""}},
		"with a scope of it":             {g, newRequest("orders.write", orders), outcome{"orders.write", []string{orders}, ""}},
		"with a query":                   {g, newRequest("", billing), outcome{"billing", []string{billing}, ""}},
		"two":                            {g, newRequest("", billing, orders), outcome{"orders.read orders.write billing", []string{billing, orders}, ""}},
		"one twice":                      {g, newRequest("", orders, orders), outcome{"orders.read orders.write", []string{orders}, ""}},
		"two with scopes of both":        {g, newRequest("billing orders.read", orders, billing), outcome{"billing orders.read", []string{orders, billing}, ""}},
		"default scopes":                 {withDefault, newRequest("", billing), outcome{"billing", []string{billing}, ""}},
		"no default scope of it":         {withDefault, newRequest("", orders), scope},
		"scope of another resource":      {g, newRequest("billing", orders), scope},
		"scope of no resource":           {g, newRequest("misc orders.read", orders), scope},
		"unknown":                        {g, newRequest("", "https://unknown.example.com"), target},
		"one unknown":                    {g, newRequest("", orders, "https://unknown.example.com"), target},
		"another spelling":               {g, newRequest("", orders+"/"), target},
		"upper case":                     {g, newRequest("", strings.ToUpper(orders)), target},
		"with a fragment":                {g, newRequest("", orders+"#x"), target},
		"with an empty fragment":         {g, newRequest("", orders+"#"), target},
		"relative":                       {g, newRequest("", "/orders"), target},
		"without scheme":                 {g, newRequest("", "//orders.example.com"), target},
		"a name that is not a URI":       {g, newRequest("legacy", legacy), target},
		"only a scheme":                  {g, newRequest("", "https:"), target},
		"does not parse":                 {g, newRequest("", "https://[::1"), target},
		"no scope there":                 {newGrant("billing"), newRequest("", orders), target},
		"client without scopes":          {newGrant(), newRequest("", orders), target},
		"listed":                         {listed, newRequest("", billing), outcome{"billing", []string{billing}, ""}},
		"not listed":                     {listed, newRequest("", orders), target},
		"not listed, by its scope":       {listed, newRequest("orders.read"), scope},
		"listed, by its scope":           {listed, newRequest("billing"), outcome{"billing", []string{billing}, ""}},
		"listed and not, omitted":        {listed, newRequest(""), scope},
		"listed and not, two":            {listed, newRequest("", billing, orders), target},
		"listed, client has no scopes":   {bare, newRequest("", orders), outcome{"", []string{orders}, ""}},
		"listed, not declared by anyone": {&Grant{ClientID: "a", Resources: []string{"urn:x"}, Thumbprint: g.Thumbprint, NotAfter: g.NotAfter}, newRequest("", "urn:x"), target},
	})
}

// TestAudienceFollowsTheScopes_R32_R33 covers RFC 9068 §2.2.3 and §5: a token
// never has scopes that could mean different things to different APIs.
func TestAudienceFollowsTheScopes_R32_R33(t *testing.T) {
	g := newGrant("orders.read", "orders.write", "billing", "legacy", "misc")
	scope := outcome{code: CodeInvalidScope}

	cases := map[string]grantCase{
		"all of one resource":      {g, newRequest("orders.read orders.write"), outcome{"orders.read orders.write", []string{orders}, ""}},
		"of one that is not a URI": {g, newRequest("legacy"), outcome{"legacy", []string{legacy}, ""}},
		"omitted, of one":          {newGrant("billing"), newRequest(""), outcome{"billing", []string{billing}, ""}},
		"of two resources":         {g, newRequest("orders.read billing"), scope},
		"omitted, of several":      {g, newRequest(""), scope},
		"of a resource and none":   {g, newRequest("misc orders.read"), scope},
		"the other way round":      {g, newRequest("orders.read misc"), scope},
		"of none":                  {g, newRequest("misc"), scope},
		"client without scopes":    {newGrant(), newRequest(""), outcome{code: CodeInvalidTarget}},
	}
	runGrantCases(t, IssuerConfig{Resources: apis}, cases)

	withAudience := map[string]grantCase{
		"of none":               {g, newRequest("misc"), outcome{"misc", []string{"default"}, ""}},
		"client without scopes": {newGrant(), newRequest(""), outcome{"", []string{"default"}, ""}},
	}
	for name, tc := range cases {
		if _, differs := withAudience[name]; !differs {
			withAudience[name] = tc
		}
	}
	runGrantCases(t, IssuerConfig{Resources: apis, Audience: []string{"default"}}, withAudience)
}

func TestSeveralResourcesNameTheRemedy(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{Resources: apis})
	_, err := issuer.Mint(t.Context(), newGrant("orders.read", "billing"), newRequest(""))
	if err == nil || !strings.Contains(err.Description, "resource parameter") {
		t.Errorf("error is %v", err)
	}
}

// TestManyRepeatedScopes checks that the time for 64 KiB of scopes does not
// grow with their square.
func TestManyRepeatedScopes(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{})
	token := mustMint(t, issuer, newGrant("a", "b"), newRequest(strings.Repeat("a b ", 16<<10)))
	if token.Scope != "a b" {
		t.Errorf("scope is %.50q", token.Scope)
	}
}
