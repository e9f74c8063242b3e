package mtlsauth

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// clientRules are what a realm requires of each of its clients. They depend on its
// configuration alone, so that a change of one client is checked without the others.
type clientRules struct {
	// trust is the zero Trust without a trust pool, and shadow nil without a shadow.
	// Whether they are of the operating system does not change when they are reloaded.
	trust, shadow *trustpool.Trust
	fapi2         bool
	// issuer is nil if the realm has none. withoutIssuer is set if that is unknown.
	issuer        *tokens.IssuerConfig
	withoutIssuer bool
}

// check returns why the realm cannot have the client.
func (r *clientRules) check(client *clients.Client) error {
	for _, check := range []func(*clients.Client) error{r.checkClaims, r.checkTrust, r.checkProfile, r.checkResources} {
		if err := check(client); err != nil {
			return fmt.Errorf("client '%s': %w", client.ID, err)
		}
	}
	return nil
}

func (r *clientRules) checkClaims(client *clients.Client) error {
	for _, name := range client.ClaimNames() {
		if err := checkClaimName(name); err != nil {
			return err
		}
	}
	return nil
}

// checkClaimName returns why a client cannot have a claim of that name.
func checkClaimName(name string) error {
	switch {
	case !tokens.ValidClaimName(name):
		return fmt.Errorf("claim '%s': use only A-Z a-z 0-9 _ . - in its name", name)
	case tokens.ReservedClaim(name):
		return fmt.Errorf("claim '%s' is reserved for the token itself; choose another name", name)
	}
	return nil
}

// checkTrust checks that not just any CA can issue the client's names.
func (r *clientRules) checkTrust(client *clients.Client) error {
	const anyCA = "under %s system any public CA could issue its name; add issued_by with the SHA-256 hash of the right CA"
	loose := client.HasPKI() && len(client.IssuedBy) == 0
	switch {
	case r.trust.Pool == nil && client.HasPKI():
		i := slices.IndexFunc(client.Credentials, func(cred clients.Credential) bool { return !cred.Kind.Pinned() })
		cred := client.Credentials[i]
		return fmt.Errorf("%s '%s': the realm has no trust_pool, so any CA could issue this name; add one", cred.Kind, cred.Value)
	case r.trust.Pool == nil && (client.RequireChain || len(client.IssuedBy) > 0):
		return errors.New("require_chain and issued_by need a trust_pool in the realm; add one or remove them")
	case r.trust.System && loose:
		return fmt.Errorf(anyCA, observed.TrustPool)
	case r.shadow != nil && r.shadow.System && loose:
		return fmt.Errorf(anyCA, observed.ShadowPool)
	}
	return nil
}

// checkProfile checks that the client has no SHA-1 thumbprint if the profile of the
// issuer does not allow it: a token that is bound to a certificate which can be forged
// is not sender-constrained.
func (r *clientRules) checkProfile(client *clients.Client) error {
	if !r.fapi2 {
		return nil
	}
	if i := slices.IndexFunc(client.Credentials, func(cred clients.Credential) bool { return cred.IsSHA1() }); i >= 0 {
		return fmt.Errorf("thumbprint '%s' is SHA-1, which profile %s does not allow; replace it with the SHA-256 thumbprint", client.Credentials[i].Value, profileFAPI2)
	}
	return nil
}

// checkResources checks the client's resources against the issuer.
func (r *clientRules) checkResources(client *clients.Client) error {
	const noIssuer = "%s '%s': the realm has no issuer, so it issues no tokens; add an issuer, or remove the word"
	switch {
	case r.withoutIssuer:
		return nil
	case r.issuer == nil && len(client.Introspect) > 0:
		return fmt.Errorf(noIssuer, "introspect", client.Introspect[0])
	case r.issuer == nil && len(client.Resources) > 0:
		return fmt.Errorf(noIssuer, "resources", client.Resources[0])
	}
	for _, resource := range client.Resources {
		if !r.issuer.HasResource(resource) {
			return fmt.Errorf("resources '%s': the issuer has no such resource; declare it with 'resource %s { … }', or correct the name", resource, resource)
		}
	}
	for _, audience := range client.Introspect {
		if !r.issuer.HasAudience(audience) {
			return fmt.Errorf("introspect '%s': no token of the issuer has this audience; declare it as a resource or audience, or correct the name", audience)
		}
	}
	return nil
}
