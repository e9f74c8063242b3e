package tokens

import "testing"

type route struct {
	host, path string
	want       EndpointKind
}

func checkRoutes(t *testing.T, cfg IssuerConfig, routes []route) {
	t.Helper()
	issuer := newTestIssuer(t, cfg)
	for _, r := range routes {
		if got := issuer.Endpoint(r.host, r.path); got != r.want {
			t.Errorf("issuer %q, alias %q: %s%s is endpoint %d, want %d", cfg.URL, cfg.MTLSAlias, r.host, r.path, got, r.want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	const host = "auth.example.com"
	for _, url := range []string{testURL, testURL + "/"} {
		checkRoutes(t, IssuerConfig{URL: url}, []route{
			{host, "/.well-known/openid-configuration", EndpointMetadata},
			{host, "/.well-known/oauth-authorization-server", EndpointMetadata},
			{host, "/.well-known/openid-configuration/jwks", EndpointJWKS},
			{host, "/connect/token", EndpointToken},
			{host, "/connect/mtls/token", EndpointToken},
			{"other.example.com:8443", "/connect/token", EndpointToken},
			{"", "/connect/token", EndpointToken},
			{host, "", EndpointNone},
			{host, "/", EndpointNone},
			{host, "/connect/token/", EndpointNone},
			{host, "//connect/token", EndpointNone},
			{host, "/connect//token", EndpointNone},
			{host, "/Connect/Token", EndpointNone},
			{host, "/connect/tokens", EndpointNone},
			{host, "/connect/token;x", EndpointNone},
			{host, "/connect/introspect", EndpointIntrospection},
			{host, "/connect/mtls/introspect", EndpointIntrospection},
			{host, "/connect/introspect/", EndpointNone},
			{host, "/connect/introspection", EndpointNone},
			{host, "/connect/revocation", EndpointNone},
			{host, "/connect/mtls/revocation", EndpointNone},
			{host, "/.well-known/oauth-authorization-server/jwks", EndpointNone},
			{host, "/.well-known/openid-configuration/", EndpointNone},
		})
	}
}

func TestWellKnownPathsOfAnIssuerWithAPath_R41(t *testing.T) {
	for _, url := range []string{testURL + "/tenant1", testURL + "/tenant1/"} {
		checkRoutes(t, IssuerConfig{URL: url}, []route{
			{"", "/.well-known/oauth-authorization-server/tenant1", EndpointMetadata},
			{"", "/.well-known/openid-configuration/tenant1", EndpointMetadata},
			{"", "/tenant1/.well-known/openid-configuration", EndpointMetadata},
			{"", "/tenant1/.well-known/oauth-authorization-server", EndpointMetadata},
			{"", "/tenant1/.well-known/openid-configuration/jwks", EndpointJWKS},
			{"", "/tenant1/connect/token", EndpointToken},
			{"", "/tenant1/connect/mtls/token", EndpointToken},
			{"", "/tenant1/connect/introspect", EndpointIntrospection},
			{"", "/connect/introspect", EndpointNone},
			{"", "/connect/token", EndpointNone},
			{"", "/.well-known/openid-configuration", EndpointNone},
			{"", "/.well-known/oauth-authorization-server/tenant1/", EndpointNone},
			{"", "/.well-known/oauth-authorization-server/tenant2", EndpointNone},
			{"", "/tenant10/connect/token", EndpointNone},
		})
	}
}

// TestEndpointsOfAnIssuerThatRevokes_R39 checks that there is a revocation
// endpoint only with a list of revoked tokens.
func TestEndpointsOfAnIssuerThatRevokes_R39(t *testing.T) {
	revocations := newTestRevoked(t, newStorage(t))
	checkRoutes(t, IssuerConfig{URL: testURL + "/t", RevokedTokens: revocations, MTLSAlias: "https://mtls.example.com/m"}, []route{
		{"auth.example.com", "/t/connect/revocation", EndpointRevocation},
		{"auth.example.com", "/t/connect/mtls/revocation", EndpointRevocation},
		{"auth.example.com", "/connect/revocation", EndpointNone},
		{"auth.example.com", "/t/connect/revocation/", EndpointNone},
		{"auth.example.com", "/t/connect/revoke", EndpointNone},
		{"mtls.example.com", "/m/connect/revocation", EndpointRevocation},
		{"mtls.example.com", "/m/connect/introspect", EndpointIntrospection},
		{"mtls.example.com", "/m/connect/mtls/revocation", EndpointRevocation},
	})
	checkRoutes(t, IssuerConfig{MTLSAlias: "https://mtls.example.com"}, []route{
		{"mtls.example.com", "/connect/introspect", EndpointIntrospection},
		{"mtls.example.com", "/connect/mtls/introspect", EndpointIntrospection},
		{"mtls.example.com", "/connect/revocation", EndpointNone},
	})
}

func TestAliasHost_R17(t *testing.T) {
	checkRoutes(t, IssuerConfig{MTLSAlias: "https://mtls.example.com/m/"}, []route{
		{"mtls.example.com", "/m/connect/token", EndpointToken},
		{"mtls.example.com:443", "/m/connect/token", EndpointToken},
		{"MTLS.Example.com", "/m/connect/token", EndpointToken},
		{"mtls.example.com", "/connect/token", EndpointNone},
		{"mtls.example.com", "/m/connect/mtls/token", EndpointToken},
		{"mtls.example.com", "/.well-known/openid-configuration", EndpointNone},
		{"mtls.example.com:8443", "/m/connect/token", EndpointNone},
		{"mtls.example.com:8443", "/connect/token", EndpointToken},
		{"auth.example.com", "/connect/token", EndpointToken},
		{"auth.example.com", "/connect/mtls/token", EndpointToken},
		{"auth.example.com", "/m/connect/token", EndpointNone},
	})
	checkRoutes(t, IssuerConfig{MTLSAlias: "https://auth.example.com:8443"}, []route{
		{"auth.example.com:8443", "/connect/token", EndpointToken},
		{"auth.example.com:8443", "/connect/mtls/token", EndpointToken},
		{"auth.example.com", "/connect/mtls/token", EndpointToken},
	})
}

func TestAliasOnTheIssuersOwnHost_R17(t *testing.T) {
	checkRoutes(t, IssuerConfig{URL: "https://auth.example.com:443/t", MTLSAlias: "https://AUTH.example.com/m"}, []route{
		{"auth.example.com", "/m/connect/token", EndpointToken},
		{"auth.example.com", "/t/connect/token", EndpointToken},
		{"auth.example.com", "/t/connect/mtls/token", EndpointToken},
		{"auth.example.com", "/t/.well-known/openid-configuration", EndpointMetadata},
	})
}

// TestPathsThatAreTheIssuers checks which paths are answered even though nothing is
// there.
func TestPathsThatAreTheIssuers(t *testing.T) {
	const issuer, alias = "auth.example.com", "mtls.example.com"
	for _, tc := range []struct {
		cfg        IssuerConfig
		host, path string
		want       bool
	}{
		{IssuerConfig{}, issuer, "/connect/tokens", true},
		{IssuerConfig{}, issuer, "/connect/", true},
		{IssuerConfig{}, issuer, "/connect/mtls/token/", true},
		{IssuerConfig{}, issuer, "/connect/revocation", true}, // without a list of revoked tokens
		{IssuerConfig{}, issuer, "/connect", false},
		{IssuerConfig{}, issuer, "/connected", false},
		{IssuerConfig{}, issuer, "/api/connect/token", false},
		{IssuerConfig{}, issuer, "/.well-known/security.txt", false},
		{IssuerConfig{URL: testURL + "/t"}, issuer, "/t/connect/x", true},
		{IssuerConfig{URL: testURL + "/t"}, issuer, "/connect/token", false},
		{IssuerConfig{MTLSAlias: "https://mtls.example.com/m"}, alias, "/m/connect/x", true},
		{IssuerConfig{MTLSAlias: "https://mtls.example.com/m"}, alias, "/connect/token", false},
		{IssuerConfig{MTLSAlias: "https://mtls.example.com/m"}, alias, "/m/.well-known/openid-configuration", true},
		{IssuerConfig{MTLSAlias: "https://mtls.example.com/m"}, alias, "/.well-known/oauth-authorization-server/m", true},
		{IssuerConfig{MTLSAlias: "https://mtls.example.com/m"}, alias, "/", false},
		{IssuerConfig{MTLSAlias: "https://mtls.example.com/m"}, issuer, "/m/connect/x", false},
		{IssuerConfig{MTLSAlias: testURL + "/m"}, issuer, "/m/connect/x", true},
		{IssuerConfig{MTLSAlias: testURL + "/m"}, issuer, "/m/.well-known/x", false},
	} {
		if got := newTestIssuer(t, tc.cfg).Owns(tc.host, tc.path); got != tc.want {
			t.Errorf("issuer %q, alias %q: %s%s belongs to the issuer: %v", tc.cfg.URL, tc.cfg.MTLSAlias, tc.host, tc.path, got)
		}
	}
}

func TestEndpointDoesNotAllocate(t *testing.T) {
	issuer := newTestIssuer(t, IssuerConfig{MTLSAlias: "https://mtls.example.com"})
	if n := testing.AllocsPerRun(100, func() { issuer.Endpoint("mtls.example.com:443", "/connect/token") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
