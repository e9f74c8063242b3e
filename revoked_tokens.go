package mtlsauth

import (
	"context"
	"crypto/x509"
	"hash/maphash"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

const (
	// revokedPoll is how soon a node learns about tokens that other nodes have
	// revoked.
	revokedPoll = 5 * time.Second
	// revokedTimeout bounds one refresh from storage.
	revokedTimeout = 30 * time.Second
	// revokedFirst bounds the load that a start or a reload waits for.
	revokedFirst = 10 * time.Second
)

// loadRevokedTokens reads the revoked tokens from storage. It changes nothing
// there, because a configuration may be provisioned only to validate it.
func loadRevokedTokens(realm *Realm, issuer string, longest func() time.Duration) (*tokens.RevokedTokens, error) {
	var before *tokens.RevokedTokens
	if running := realm.running(); running.issuer != nil {
		before = running.issuer.revokedTokens
	}
	list, err := tokens.NewRevokedTokens(tokens.RevokedTokensConfig{
		Storage: realm.storage, Realm: realm.name, Issuer: issuer, LongestToken: longest, Now: realm.app.Now,
		Report: func(event, key string, err error) {
			realm.logger.Error("stored token revocation", zap.String("event", event), zap.String("key", key), zap.Error(err))
		},
	}, before)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(realm.app.ctx, revokedFirst)
	defer cancel()
	if err := list.Load(within); err != nil {
		reportRevokedTokens(realm, list, err)
	}
	return list, nil
}

func reportRevokedTokens(realm *Realm, list *tokens.RevokedTokens, err error) {
	realm.events.SourceRead(status.SourceRevokedTokens, err)
	consequence := "keeping previous list"
	if !list.Known() {
		consequence = "every token counts as revoked"
	}
	realm.logger.Error("reading revoked tokens failed; "+consequence, zap.Error(err))
}

// keepRevokedTokens reads the tokens that other nodes have revoked, and removes
// expired ones from storage, until ctx is done.
func keepRevokedTokens(ctx context.Context, realm *Realm) {
	list := realm.issuer.revokedTokens
	source.Poll(ctx, revokedPoll, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, revokedTimeout)
		defer cancel()
		if realm.app.stopped.Load() {
			return list.Load(ctx)
		}
		return list.Refresh(ctx)
	}, func(err error) {
		if realm.app.stopped.Load() {
			return // the storage may have been closed too
		}
		if err != nil {
			reportRevokedTokens(realm, list, err)
			return
		}
		realm.events.SourceRead(status.SourceRevokedTokens, nil)
		realm.logger.Info("reading revoked tokens works again")
	})
}

const (
	// maxTokenChains is how many certificates are remembered that tokens are bound
	// to.
	maxTokenChains = 1 << 11
	// maxTokenChain bounds one of them together with its chains, in bytes.
	maxTokenChain = 8 << 10
)

// deniedTokens finds the tokens whose certificate is denied. A token has only the
// SHA-256 of its certificate, but rules of the deny file may be about other parts of
// it, or about its CA, so the certificates of issued tokens are remembered.
type deniedTokens struct {
	checker *revocation.Checker
	chains  *cache.Table[tokenChain]
}

// tokenChain is a certificate that tokens are bound to: its x5t#S256, and the verified
// chains, leaf first, or the leaf alone if it needed none.
type tokenChain struct {
	thumbprint string
	chains     [][]*x509.Certificate
}

// newDeniedTokens returns nil if the realm has no deny file. It remembers what the
// running configuration does.
func newDeniedTokens(realm *Realm) *deniedTokens {
	if realm.revocation == nil || realm.revocation.deny == nil {
		return nil
	}
	d := &deniedTokens{checker: realm.revocation.checker}
	if running := realm.running().issuer; running != nil && running.denied != nil {
		d.chains = running.denied.chains
	} else {
		chains := cache.New[tokenChain](maxTokenChains)
		d.chains = &chains
	}
	return d
}

// remember remembers the certificates with which a client got a token, leaf first. It
// looks for the chains again, because the client need not have sent the CAs that a rule
// may be about. If they are too long, the leaf alone counts.
func (d *deniedTokens) remember(id identity, presented []*x509.Certificate, now time.Time) {
	if d == nil || d.find(id.Thumbprint) != nil {
		return
	}
	known := &tokenChain{id.Thumbprint, [][]*x509.Certificate{presented[:1:1]}}
	if id.Credential.NeedsChain() {
		if chains, err := id.decidedBy.trust.Pool.Verify(presented[0], presented[1:], now); err == nil && chainsSize(chains) <= maxTokenChain {
			known.chains = chains
		}
	}
	same := func(other *tokenChain) bool { return other.thumbprint == known.thumbprint }
	d.chains.Replace(maphash.String(cache.Seed, known.thumbprint), known, same, func(*tokenChain) bool { return false })
}

func chainsSize(chains [][]*x509.Certificate) (size int) {
	for _, chain := range chains {
		for _, cert := range chain {
			size += len(cert.Raw)
		}
	}
	return size
}

// has reports whether the certificate of an x5t#S256 is denied: each of its chains has a
// certificate that is.
func (d *deniedTokens) has(thumbprint string) bool {
	if known := d.find(thumbprint); known != nil {
		return !slices.ContainsFunc(known.chains, func(chain []*x509.Certificate) bool { return d.checker.CheckDenied(chain...) == nil })
	}
	parsed, err := validators.ParseThumbprint(thumbprint)
	return err != nil || d.checker.DeniesThumbprint(parsed)
}

func (d *deniedTokens) find(thumbprint string) *tokenChain {
	return d.chains.Find(maphash.String(cache.Seed, thumbprint), func(known *tokenChain) bool { return known.thumbprint == thumbprint })
}
