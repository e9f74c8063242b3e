// Package observed describes the realms of a configuration for the people who run them:
// their state, what expires, who is refused, and how old each source is. Nothing is decided
// by it.
package observed

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
	"github.com/caddymtls/caddy-mtls-auth/internal/traffic"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

// The words of the trust pools of a realm.
const (
	TrustPool  = "trust_pool"
	ShadowPool = "shadow_trust_pool"
	FetchPool  = "fetch trust_pool"
)

// Realm has the parts of a realm that can be observed.
type Realm struct {
	Name string
	// Since is when Refusals, Sightings and Traffic began, which outlive a reload.
	Since     time.Time
	Refusals  *refusals.Memory
	Sightings *sightings.Table
	Traffic   *traffic.Hour
	// Registry has the clients that are in force, and Directory where they come from.
	Registry  *clients.Registry
	Directory *directory.Directory
	// Pools are the trust pools that there are.
	Pools []*trustpool.Pool
	// Shadow, CRLs, Deny and Issuer are nil for none.
	Shadow *authn.Shadow
	CRLs   *revocation.CRLSource
	Deny   *revocation.DenyFile
	Issuer *Issuer
}

// Issuer has the parts of an issuer that can be observed.
type Issuer struct {
	URL           string
	Keys          *keyring.Source
	RevokedTokens *tokens.RevokedTokens
	// RevokedPoll is how often those are read.
	RevokedPoll time.Duration
}

// Pool returns what the trust pool of a word holds now, nil if there is none.
func (r *Realm) Pool(word string) *trustpool.Trust {
	for _, pool := range r.Pools {
		if pool.Word() == word {
			return pool.Trust()
		}
	}
	return nil
}

// Strangers returns certificates that were refused lately and that no client declares, the
// last refused first, and how many more there are than limit.
func (r *Realm) Strangers(limit int) (list []refusals.Stranger, more int) {
	all, _ := r.Refusals.Strangers(0)
	list = slices.DeleteFunc(all, r.declares)
	if len(list) > limit {
		list, more = list[:limit], len(list)-limit
	}
	return list, more
}

// declares reports whether a client declares the certificate by its thumbprint or key.
func (r *Realm) declares(s refusals.Stranger) bool {
	certificate, _ := r.Registry.DeclaredHash(hashOf(s.Thumbprint))
	_, key := r.Registry.DeclaredHash(hashOf(s.PublicKey))
	return certificate != nil || key != nil
}

func hashOf(text string) (sum [sha256.Size]byte) {
	decoded, _ := hex.DecodeString(text)
	copy(sum[:], decoded)
	return sum
}
