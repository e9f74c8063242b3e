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
	if err := caddyfileutil.ParseString(d, &i.URL, tokens.CheckIssuerURL); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "token_lifetime":
			err = caddyfileutil.ParseDuration(d, &i.TokenLifetime, checkTokenLifetime)
		case "signing_algorithm":
			err = caddyfileutil.ParseString(d, &i.SigningAlgorithm, checkAlgorithm)
		case "signing_key":
			err = caddyfileutil.ParseString(d, &i.SigningKey, nil)
		case "verify_key":
			err = caddyfileutil.ParseList(d, &i.VerifyKeys, nil)
		case "rotate_every":
			err = caddyfileutil.ParseDuration(d, &i.RotateEvery, func(every caddy.Duration) error { return keyring.CheckRotateEvery(time.Duration(every)) })
		case "announce_for":
			err = caddyfileutil.ParseDuration(d, &i.AnnounceFor, func(d caddy.Duration) error { return keyring.CheckAnnounceFor(time.Duration(d)) })
		case "mtls_alias":
			err = caddyfileutil.ParseString(d, &i.MTLSAlias, tokens.CheckIssuerURL)
		case "audience":
			err = caddyfileutil.ParseList(d, &i.Audience, nil)
		case "resource":
			err = i.parseResource(d)
		case "profile":
			err = caddyfileutil.ParseString(d, &i.Profile, checkProfileName)
		case "scope_claim":
			err = caddyfileutil.ParseString(d, &i.ScopeClaim, tokens.CheckScopeClaim)
		default:
			err = d.Errf("unrecognized issuer option '%s'", option)
		}
		if err != nil {
			return err
		}
	}
	if err := i.checkRotation(); err != nil {
		return d.WrapErr(fmt.Errorf("issuer: %w", err))
	}
	if i.Profile == profileFAPI2 && i.SigningAlgorithm != "" {
		return caddyfileutil.CheckValue(d, "signing_algorithm", i.SigningAlgorithm, func(name string) error { return checkFAPIAlgorithm(keyring.Algorithm(name)) })
	}
	return nil
}

func checkAlgorithm(name string) error {
	_, err := keyring.ParseAlgorithm(name)
	return err
}

// parseResource reads an API and its scopes.
func (i *IssuerConfig) parseResource(d *caddyfile.Dispenser) error {
	var resource tokens.Resource
	if err := caddyfileutil.ParseString(d, &resource.Name, nil); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "scopes":
			if err := caddyfileutil.ParseScopes(d, &resource.Scopes); err != nil {
				return err
			}
		default:
			return d.Errf("unrecognized resource option '%s'", option)
		}
	}
	i.Resources = append(i.Resources, resource)
	if err := tokens.CheckResources(i.Resources); err != nil {
		return d.WrapErr(err)
	}
	return nil
}
