package mtlsauth

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// UnmarshalCaddyfile reads the issuer of a realm. Syntax:
//
//	issuer <https-url> {
//		token_lifetime    <duration>
//		signing_algorithm <alg>
//		signing_key       <pem-file>
//		verify_key        <pem-or-jwk-file>...
//		rotate_every      <duration>
//		announce_for      <duration>
//		mtls_alias        <https-url>
//		audience          <aud>...
//		resource          <name> {
//			scopes <scope>...
//		}
//		profile           fapi2
//		scope_claim       string|array
//	}
func (i *IssuerConfig) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := caddyfileutil.String(&i.URL, tokens.CheckIssuerURL).Parse(d); err != nil {
		return err
	}
	if err := parseBlock(d, "issuer option", i.options()); err != nil {
		return err
	}
	if err := i.checkRotation(); err != nil {
		return d.WrapErr(fmt.Errorf("issuer: %w", err))
	}
	if i.Profile == profileFAPI2 && i.SigningAlgorithm != "" {
		return caddyfileutil.CheckValue(d, "signing_algorithm", i.SigningAlgorithm, func(name string) error { return checkFAPIAlgorithm(keyring.Algorithm(name)) })
	}
	return nil
}

// options returns the options of the block.
func (i *IssuerConfig) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"token_lifetime <duration>":       caddyfileutil.Duration(&i.TokenLifetime, checkTokenLifetime),
		"signing_algorithm <alg>":         caddyfileutil.String(&i.SigningAlgorithm, checkAlgorithm),
		"signing_key <pem-file>":          caddyfileutil.String(&i.SigningKey, nil),
		"verify_key <pem-or-jwk-file>...": caddyfileutil.List(&i.VerifyKeys, nil),
		"rotate_every <duration>":         caddyfileutil.Duration(&i.RotateEvery, func(d caddy.Duration) error { return keyring.CheckRotateEvery(time.Duration(d)) }),
		"announce_for <duration>":         caddyfileutil.Duration(&i.AnnounceFor, func(d caddy.Duration) error { return keyring.CheckAnnounceFor(time.Duration(d)) }),
		"mtls_alias <https-url>":          caddyfileutil.String(&i.MTLSAlias, tokens.CheckIssuerURL),
		"audience <aud>...":               caddyfileutil.List(&i.Audience, nil),
		"resource <name> {":               {Parse: i.parseResource},
		"profile fapi2":                   caddyfileutil.String(&i.Profile, checkProfileName),
		"scope_claim string|array":        caddyfileutil.String(&i.ScopeClaim, tokens.CheckScopeClaim),
	}
}

func checkAlgorithm(name string) error {
	_, err := keyring.ParseAlgorithm(name)
	return err
}

// parseResource reads an API and its scopes.
func (i *IssuerConfig) parseResource(d *caddyfile.Dispenser) error {
	var resource tokens.Resource
	if err := caddyfileutil.String(&resource.Name, nil).Parse(d); err != nil {
		return err
	}
	if err := parseBlock(d, "resource option", resourceOptions(&resource)); err != nil {
		return err
	}
	i.Resources = append(i.Resources, resource)
	if err := tokens.CheckResources(i.Resources); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// resourceOptions returns the options of an API's block.
func resourceOptions(resource *tokens.Resource) caddyfileutil.Options {
	return caddyfileutil.Options{
		"scopes <scope>...": caddyfileutil.Scopes(&resource.Scopes),
	}
}
