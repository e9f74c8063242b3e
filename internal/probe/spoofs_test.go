package probe

import (
	"slices"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
)

// TestHeadersOfOtherGatewaysAreTried_A8 checks that the probe sends whatever the plugin
// protects, and nothing else in the name of another gateway.
func TestHeadersOfOtherGatewaysAreTried_A8(t *testing.T) {
	for _, pattern := range headerguard.OtherGateways {
		names := headerguard.NewNames(pattern)
		if !slices.ContainsFunc(foreignHeaders, names.Contains) {
			t.Errorf("no header like %s is tried", pattern)
		}
	}
	protected := headerguard.NewNames(append([]string{"X-Client-ID"}, headerguard.OtherGateways...)...)
	for _, name := range foreignHeaders {
		if !protected.Contains(name) {
			t.Errorf("%s is not protected", name)
		}
	}
}
