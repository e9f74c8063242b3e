package mtlsauth

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// profileFAPI2 is the FAPI 2.0 Security Profile. What it asks of a server whose
// clients have certificates is mostly what happens anyway: clients authenticate
// by certificate, every token is bound to it, metadata is published, no key is
// weak, and Caddy offers no TLS below 1.2. The checks here are what is left.
const profileFAPI2 = "fapi2"

// fapiAlgorithms are those of §5.4.1.
var fapiAlgorithms = []keyring.Algorithm{keyring.ES256, keyring.PS256, keyring.EdDSA}

func checkProfileName(name string) error {
	if name != profileFAPI2 {
		return fmt.Errorf("there is no such profile; the only one is %s", profileFAPI2)
	}
	return nil
}

func checkFAPIAlgorithm(algorithm keyring.Algorithm) error {
	if !slices.Contains(fapiAlgorithms, algorithm) {
		return fmt.Errorf("profile %s: signing algorithm '%s' is not allowed; say signing_algorithm ES256, PS256 or EdDSA, with a key that fits", profileFAPI2, algorithm)
	}
	return nil
}

// checkProfile holds the issuer's settings and keys against its profile. A past
// key may be of any kind: its tokens end.
func (i *Issuer) checkProfile(keys *keyring.Source) error {
	if i.Profile == "" {
		return nil
	}
	if err := checkProfileName(i.Profile); err != nil {
		return fmt.Errorf("profile '%s': %w", i.Profile, err)
	}
	if err := checkFAPIAlgorithm(keys.Algorithm()); err != nil {
		return err
	}
	for _, info := range keys.Infos() {
		remedy := "add the profile when a key of signing_algorithm has taken its place"
		switch {
		case slices.Contains(fapiAlgorithms, info.Algorithm) || info.State == keyring.StatePast:
			continue
		case info.State == keyring.StateVerify:
			remedy = "remove it from verify_key"
		}
		return fmt.Errorf("profile %s: the %s key '%s' is for %s, which is not allowed; %s", profileFAPI2, info.State, info.ID, info.Algorithm, remedy)
	}
	return nil
}

// fapi2 reports whether the realm's issuer has that profile.
func (realm *Realm) fapi2() bool { return realm.Issuer != nil && realm.Issuer.Profile == profileFAPI2 }

// checkProfile holds the clients against the profile of the issuer: a hash that
// can be forged makes no sender-constrained token.
func (realm *Realm) checkProfile(registry *clients.Registry) error {
	if !realm.fapi2() {
		return nil
	}
	weak := ""
	for client := range registry.All() {
		for _, cred := range client.Credentials {
			text := fmt.Sprintf("client '%s': thumbprint '%s'", client.ID, cred.Value)
			if cred.IsSHA1() && (weak == "" || text < weak) {
				weak = text
			}
		}
	}
	if weak != "" {
		return fmt.Errorf("%s is SHA-1, which profile %s does not allow; replace it by the SHA-256 thumbprint", weak, profileFAPI2)
	}
	return nil
}

// checkProfileTLS refuses cipher suites of TLS 1.2 on the sites of the issuer
// that the profile does not allow (§5.2.2, BCP 195). Caddy offers none of them
// unless it is told to.
func checkProfileTLS(ctx caddy.Context, realm *Realm) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || !realm.fapi2() {
		return nil
	}
	for _, place := range []string{realm.authority.url, realm.authority.config.MTLSAlias} {
		parsed, err := url.Parse(place)
		if err != nil || place == "" {
			continue
		}
		for _, policy := range server.TLSConnPolicies {
			var names []string
			if raw, ok := policy.MatchersRaw["sni"]; ok && json.Unmarshal(raw, &names) == nil && !slices.Contains(names, parsed.Hostname()) {
				continue
			}
			for _, suite := range policy.CipherSuites {
				if !strings.Contains(suite, "_GCM_") && !strings.Contains(suite, "_CHACHA20_") {
					return fmt.Errorf("profile %s: cipher suite '%s' of the site of '%s' is not allowed; remove it from 'ciphers' in the site's tls", profileFAPI2, suite, place)
				}
			}
			break // the first policy that fits is the one that counts
		}
	}
	return nil
}
