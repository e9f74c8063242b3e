package mtlsauth

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// TrustedIssuer is another authorization server whose access tokens are admitted.
// Its keys are fetched and refreshed in the background, never during a request.
// While the server cannot be reached, the known keys stay in use, also when the
// configuration is reloaded.
type TrustedIssuer struct {
	// The issuer identifier, an https URL. It is compared byte for byte with the
	// `iss` of tokens and the `issuer` of the server's metadata.
	Issuer string `json:"issuer"`

	// The https URL of the server's keys. Default: the one in its metadata
	// (RFC 8414, OpenID Connect Discovery).
	JWKSURI string `json:"jwks_uri,omitempty"`

	// The names of this API in the `aud` of the server's tokens; a token must have
	// one of them. Required.
	Audience []string `json:"audience,omitempty"`

	// The prefix of `{http.mtls.client_id}` for the server's clients, which keeps
	// their names apart from those of other clients. Required if there is also a
	// realm or another trusted issuer.
	IDPrefix string `json:"id_prefix,omitempty"`

	// The algorithms that tokens may be signed with. Default: `ES256`, `ES384`,
	// `ES512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512` and `EdDSA`,
	// each with keys that name this algorithm or none.
	Algorithms []string `json:"algorithms,omitempty"`

	// The `typ` of tokens: `at+jwt` (RFC 9068), or `JWT` for a server that writes
	// this instead; then both are admitted. Other tokens of such a server, such as
	// ID tokens, differ in their audience only. Default: `at+jwt`.
	Type string `json:"type,omitempty"`

	// The claim that names the client. Default: `client_id`, or `azp` if there is
	// no `client_id`.
	IDClaim string `json:"id_claim,omitempty"`

	// Also admit tokens without `cnf`, which anybody who steals them can use.
	// Default: false.
	AllowUnbound bool `json:"allow_unbound,omitempty"`

	// The CA certificates that the server's certificate chain must lead to. Files are
	// watched. Default: those of the realm's `fetch` and of the system.
	TrustPoolRaw json.RawMessage `json:"trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`
}

// trustedVerifier verifies the tokens of one issuer.
type trustedVerifier struct {
	issuer   string
	prefix   string // of client IDs
	verifier *tokens.Verifier
	own      bool // the issuer is the realm's
}

// check returns what is wrong with the configuration, as far as its text shows.
// others is set if clients of other issuers are admitted too.
func (i *TrustedIssuer) check(others bool) error {
	switch {
	case i.Issuer == "":
		return errors.New("the issuer is empty; name its https URL")
	case len(i.Audience) == 0:
		return errors.New("it has no audience; add the name that its tokens have for this API")
	case i.IDPrefix == "" && others:
		return errors.New("with another issuer or a realm, its client 'a' could be mistaken for another client 'a'; add id_prefix")
	}
	if i.IDPrefix != "" {
		if err := checkIDPrefix(i.IDPrefix); err != nil {
			return fmt.Errorf("id_prefix '%s': %w", i.IDPrefix, err)
		}
	}
	for _, name := range i.Algorithms {
		if _, err := keyring.ParseAlgorithm(name); err != nil {
			return fmt.Errorf("algorithms: %w", err)
		}
	}
	if i.Algorithms != nil && len(i.Algorithms) == 0 {
		return errors.New("algorithms is an empty list; name one or leave it out")
	}
	if i.Type != "" {
		return tokens.CheckTokenType(i.Type)
	}
	return nil
}

// checkWith reports why two servers cannot both be trusted.
func (i *TrustedIssuer) checkWith(other *TrustedIssuer) error {
	switch {
	case i.Issuer == other.Issuer:
		return errors.New("it is declared twice; merge the two")
	case strings.HasPrefix(i.IDPrefix, other.IDPrefix), strings.HasPrefix(other.IDPrefix, i.IDPrefix):
		return fmt.Errorf("id_prefix '%s' and '%s' of trust_issuer '%s' overlap, so their clients could have the same name; choose others", i.IDPrefix, other.IDPrefix, source.ShownValue(other.Issuer))
	}
	return nil
}

func checkIDPrefix(prefix string) error {
	if strings.Contains(prefix, "{") {
		return errors.New("placeholders are not expanded in it; write {$NAME} for an environment variable")
	}
	if checkForeignID(prefix) != nil {
		return errors.New("use at most 200 letters, digits and ._~:@/+-, but no comma")
	}
	return nil
}

// checkForeignID reports why a client of another server cannot have a name: it is not
// a client identifier, or an upstream might read it as a list of several.
func checkForeignID(id string) error {
	if strings.Contains(id, ",") {
		return errors.New("its name has a comma, as in a list of names")
	}
	return clients.CheckID(id)
}

// expand resolves the placeholders of the issuer's own values.
func (i TrustedIssuer) expand() (TrustedIssuer, error) {
	var err error
	if i.Issuer, err = caddyfileutil.Expand(i.Issuer); err != nil {
		return i, err
	}
	if i.JWKSURI, err = caddyfileutil.Expand(i.JWKSURI); err != nil {
		return i, fmt.Errorf("jwks_uri: %w", err)
	}
	i.Audience, err = caddyfileutil.ExpandAll("audience", i.Audience)
	return i, err
}

// acceptIssuers adds the verifiers of all issuers whose tokens are admitted.
func (h *BearerHandler) acceptIssuers() error {
	if issuer := h.realm.issuer; issuer != nil {
		audience, err := h.ownAudience()
		if err != nil {
			return err
		}
		err = h.accept(&trustedVerifier{issuer: issuer.Config.URL, own: true}, tokens.VerifierConfig{Keys: issuer.Keys, Audiences: audience})
		if err != nil {
			return err
		}
	}
	for _, trusted := range h.TrustIssuers {
		if err := h.trust(trusted); err != nil {
			return fmt.Errorf("trust_issuer '%s': %w", source.ShownValue(trusted.Issuer), err)
		}
	}
	return nil
}

// ownAudience returns the audience of the realm's tokens.
func (h *BearerHandler) ownAudience() ([]string, error) {
	config := h.realm.issuer.Config
	switch {
	case len(h.Audience) > 0:
		return caddyfileutil.ExpandAll("audience", h.Audience)
	case len(config.Audience) > 0:
		return config.Audience, nil
	}
	return []string{config.URL}, nil
}

// accept adds a verifier, whose configuration lacks issuer and clock.
func (h *BearerHandler) accept(issuer *trustedVerifier, config tokens.VerifierConfig) error {
	for _, audience := range config.Audiences {
		if err := h.realm.app.declared.reserveAudience(audience, "mtls_bearer"); err != nil {
			return err
		}
	}
	config.Issuer, config.Now = issuer.issuer, h.realm.app.Now
	var err error
	if issuer.verifier, err = tokens.NewVerifier(config); err != nil {
		return err
	}
	h.tokens.verifiers = append(h.tokens.verifiers, issuer)
	return nil
}

// trust adds the verifier of another server.
func (h *BearerHandler) trust(trusted *TrustedIssuer) error {
	config, err := trusted.expand()
	if err != nil {
		return err
	}
	for _, other := range h.tokens.verifiers {
		if other.issuer == config.Issuer {
			return errors.New("it is the realm's own issuer, or declared twice; remove one")
		}
	}
	keys, err := h.loadTrustedKeys(trusted, config)
	if err != nil {
		return err
	}
	verifier := tokens.VerifierConfig{
		Keys: keys, Audiences: config.Audience, Type: config.Type, ClientIDClaim: config.IDClaim, AllowUnbound: config.AllowUnbound,
	}
	for _, name := range config.Algorithms {
		verifier.Algorithms = append(verifier.Algorithms, keyring.Algorithm(name))
	}
	if config.AllowUnbound {
		h.realm.app.logger.Warn("allow_unbound admits tokens that are not bound to a certificate", zap.String("issuer", config.Issuer))
	}
	return h.accept(&trustedVerifier{issuer: config.Issuer, prefix: config.IDPrefix}, verifier)
}

// trustedKeysID identifies the keys of a server, with how it is reached: trustPool is
// the pool of trust_issuer, fetch that of the realm in its place.
type trustedKeysID struct{ issuer, jwksURI, trustPool, fetch string }

// loadTrustedKeys returns the keys of another server, which all directives share. It
// takes over those that the running configuration has fetched.
func (h *BearerHandler) loadTrustedKeys(trusted *TrustedIssuer, config TrustedIssuer) (*tokens.TrustedKeys, error) {
	a := h.realm.app
	id := trustedKeysID{issuer: config.Issuer, jwksURI: config.JWKSURI, trustPool: string(trusted.TrustPoolRaw)}
	if trusted.TrustPoolRaw == nil && h.realm.Fetch != nil {
		id.fetch = string(h.realm.Fetch.TrustPoolRaw)
	}
	if keys := a.declared.trustedKeys(id); keys != nil {
		return keys, nil
	}
	network := h.realm.trust.network
	if trusted.TrustPoolRaw != nil {
		network = source.NewNetwork(nil)
	}
	keys, err := tokens.NewTrustedKeys(tokens.TrustedKeysConfig{
		Issuer: config.Issuer, JWKSURI: config.JWKSURI, Transport: network, Now: a.Now,
	})
	if err != nil {
		return nil, err
	}
	if trusted.TrustPoolRaw != nil {
		pool, err := h.realm.trust.loadForServers(observed.TrustPool, trusted.TrustPoolRaw, network, func(t *trustpool.Trust) (*x509.CertPool, error) { return t.Roots(), nil })
		if err != nil {
			return nil, err
		}
		a.declared.addPool(pool)
	}
	if running := runningApp().declared.trustedKeys(id); running != nil {
		keys.TakeOver(running)
	}
	a.declared.addTrustedKeys(id, keys)
	return keys, nil
}

// keep fetches another server's keys when they are due, until ctx is done.
func (id trustedKeysID) keep(ctx context.Context, a *App, keys *tokens.TrustedKeys) {
	logger := a.logger.With(zap.String("issuer", id.issuer), zap.String("place", source.ShownURL(cmp.Or(id.jwksURI, id.issuer))))
	look(ctx, func(ctx context.Context) {
		if a.Now().Before(keys.Due()) {
			return
		}
		changed, err := keys.Refresh(ctx)
		if a.ctx.Err() != nil {
			return // the next configuration fetches them itself
		}
		a.events.Realm("").SourceRead("jwks:"+id.issuer, err)
		switch {
		case err != nil:
			logger.Error("fetching issuer keys failed; keeping previous keys", zap.Error(err))
		case changed:
			logger.Info("issuer keys refreshed")
			if faults := keys.NewFaults(); len(faults) > 0 {
				logger.Warn("keys of issuer left out", zap.Strings("faults", faults))
			}
		}
	})
}
