// Package authserver runs the authorization server of a realm: it keeps its signing keys
// and revoked tokens up to date, and knows what each registered client may have. What it
// answers is in the package tokens.
package authserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

// Settings are what is configured, with placeholders expanded.
type Settings struct {
	// Config is that of the server, without what is loaded here.
	Config tokens.IssuerConfig
	// Algorithm is what new keys sign with. Default: ES256, or one that fits SigningKey.
	Algorithm keyring.Algorithm
	// SigningKey is a PEM file. Default: managed keys.
	SigningKey string
	// VerifyKeys are files with keys that never sign.
	VerifyKeys []string
	// RotateEvery and AnnounceFor apply to managed keys. Default: those of [keyring.Config].
	RotateEvery, AnnounceFor time.Duration
}

// Host is what a realm provides for its authorization server.
type Host struct {
	// Realm is its name.
	Realm   string
	Storage certmagic.Storage
	Logger  *zap.Logger
	Events  events.Realm
	// Registry returns the clients that are in force.
	Registry func() *clients.Registry
	// Deny has the rules of the deny file. It is nil without one.
	Deny *revocation.Checker
	// Ended reports whether the configuration has ended. Then nothing in storage is changed
	// any more.
	Ended func() bool
	// Before is the server that the new one replaces, or nil.
	Before *Server
}

// Server is the part of a realm's authorization server that stays the same while clients
// change.
type Server struct {
	Settings
	// Keys are its signing keys. FixedKey is the ID of the key in SigningKey, "" with
	// managed keys.
	Keys     *keyring.Source
	FixedKey string
	// RevokedTokens are the tokens that have been revoked.
	RevokedTokens *tokens.RevokedTokens
	// Denied is nil without a deny file.
	Denied *DeniedTokens
	// Issuer has no clients; see [Server.WithClients].
	Issuer *tokens.Issuer

	host Host
}

// Load reads the signing keys and the revoked tokens. It changes nothing in storage,
// because a configuration may be provisioned only to validate it.
func Load(ctx context.Context, settings Settings, host Host) (*Server, error) {
	s := &Server{Settings: settings, host: host}
	if err := s.loadKeys(ctx); err != nil {
		return nil, err
	}
	if err := s.loadRevokedTokens(ctx); err != nil {
		return nil, err
	}
	s.Config.RevokedTokens = s.RevokedTokens
	if s.Denied = newDeniedTokens(&host); s.Denied != nil {
		s.Config.Denied = s.Denied.has
	}
	s.host.Before = nil // which would keep every configuration in memory
	var err error
	s.Issuer, err = tokens.NewIssuer(s.Config, s.Keys)
	return s, err
}

// WithClients returns the issuer with the clients of a registry.
func (s *Server) WithClients(registry *clients.Registry) *tokens.Issuer {
	return s.Issuer.WithClients(registered{registry, s.Config.Now})
}

// Watch starts what keeps the keys and the revoked tokens up to date until ctx is done.
func (s *Server) Watch(ctx context.Context) {
	go s.Keys.Keep(ctx)
	go s.keepRevokedTokens(ctx)
}

// CheckDistinct refuses issuer URLs and signing keys that two realms share, because tokens
// of one would be accepted as tokens of the other. Servers have the names of their realms.
func CheckDistinct(servers map[string]*Server) error {
	urls, keys := make(map[string]string), make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		s := servers[name]
		// libraries and people confuse URLs that differ in this only
		url := strings.TrimSuffix(strings.ToLower(s.Config.URL), "/")
		if other, twice := urls[url]; twice {
			return fmt.Errorf("realm '%s': issuer '%s' is also that of realm '%s'; give each realm its own URL", name, s.Config.URL, other)
		}
		urls[url] = name
		if other, twice := keys[s.FixedKey]; twice && s.FixedKey != "" {
			return fmt.Errorf("realm '%s': issuer: the key in signing_key is also that of realm '%s'; give each realm its own key", name, other)
		}
		keys[s.FixedKey] = name
	}
	return nil
}
