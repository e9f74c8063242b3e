package clients

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

const (
	copyVersion = 1
	// maxCopyBytes is the size of the largest copy: a JWK Set in base64, and
	// what else there is to say of its keys.
	maxCopyBytes = MaxJWKSBytes*4/3 + 64<<10
	// copyUse is how long after it was fetched a copy counts.
	copyUse = 24 * time.Hour
	// copyRefresh is how often a copy is stored again that has not changed.
	copyRefresh = copyUse / 4
	// copyAhead is how far the clocks of two nodes may differ. What is said to be
	// of a later time must not keep what is new from being stored.
	copyAhead = time.Hour
	// maxCopyContent is the size of the largest JWK Set that is stored, in bytes.
	// A storage may take no more than 400 kB, which that is in base64.
	maxCopyContent = 256 << 10
)

// Copy is what outlives the process of the JWKS of a client: the set itself if
// it is behind a URL, so that a restart does not wait for that, and since when
// the set lists which certificates, so that nobody else gets them meanwhile.
type Copy struct {
	ClientID string
	// Address is the SHA-256 hash of the URL, zero without one.
	Address [sha256.Size]byte
	// Content is a JWK Set of the certificates that were there at Fetched, nil if
	// it was never fetched or is too large to be kept.
	Content []byte
	Fetched time.Time
	// Listed tells when a certificate was first seen in the set, by its SHA-256
	// hash.
	Listed map[[sha256.Size]byte]time.Time
}

// storedCopy is a copy as JSON.
type storedCopy struct {
	Version  int                  `json:"version"`
	ClientID string               `json:"client_id"`
	Address  string               `json:"jwks_uri_sha256,omitempty"`
	Content  []byte               `json:"jwks,omitempty"`
	Fetched  time.Time            `json:"fetched,omitzero"`
	Listed   map[string]time.Time `json:"listed"`
}

var errNewerCopy = errors.New("a later release wrote it")

func (c Copy) encode() ([]byte, error) {
	stored := storedCopy{Version: copyVersion, ClientID: c.ClientID, Content: c.Content, Fetched: c.Fetched.UTC(), Listed: make(map[string]time.Time, len(c.Listed))}
	if c.Address != [sha256.Size]byte{} {
		stored.Address = hex.EncodeToString(c.Address[:])
	}
	for sum, since := range c.Listed {
		stored.Listed[hex.EncodeToString(sum[:])] = since.UTC()
	}
	return json.Marshal(stored)
}

// parseCopy reads a copy that another release may have written.
func parseCopy(text []byte) (Copy, error) {
	if err := strictjson.Check(text, maxCopyBytes); err != nil {
		return Copy{}, err
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return Copy{}, err
	}
	if version.Version > copyVersion {
		return Copy{}, errNewerCopy
	}
	var stored storedCopy
	if err := json.Unmarshal(text, &stored); err != nil {
		return Copy{}, err
	}
	c := Copy{ClientID: stored.ClientID, Content: stored.Content, Fetched: stored.Fetched, Listed: make(map[[sha256.Size]byte]time.Time, len(stored.Listed))}
	if version.Version != copyVersion || CheckID(c.ClientID) != nil {
		return Copy{}, errors.New("it is no copy of a JWKS")
	}
	if stored.Address != "" {
		var err error
		if c.Address, err = parseSum(stored.Address); err != nil {
			return Copy{}, err
		}
	}
	if len(stored.Listed) > MaxJWKSKeys {
		return Copy{}, fmt.Errorf("it lists %d certificates; at most %d are read", len(stored.Listed), MaxJWKSKeys)
	}
	for text, since := range stored.Listed {
		sum, err := parseSum(text)
		if err != nil {
			return Copy{}, err
		}
		c.Listed[sum] = since
	}
	return c, nil
}

func parseSum(text string) (sum [sha256.Size]byte, err error) {
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == len(sum) {
		return [sha256.Size]byte(raw), nil
	}
	return sum, errors.New("a hash in it is no SHA-256 hash")
}

// merge returns what two nodes know together: what is in the JWKS by the later
// of two copies of it, and of what is there when it was seen first.
func (c Copy) merge(stored Copy, now time.Time) Copy {
	latest, other := c, stored
	if stored.Address == c.Address && stored.Fetched.After(c.Fetched) && stored.Fetched.Sub(now) < copyAhead {
		latest, other = stored, c
	}
	latest.Listed = maps.Clone(latest.Listed)
	unfetched := latest.Address != [sha256.Size]byte{} && latest.Fetched.IsZero()
	for sum, since := range other.Listed {
		if known, ok := latest.Listed[sum]; ok && since.Before(known) || !ok && unfetched {
			latest.Listed[sum] = since
		}
	}
	return latest
}

// keySetOf returns a JWK Set of certificates and of nothing else: what its owner
// adds to a set costs storage nothing. It is nil if that is too large.
func keySetOf(certificates []*x509.Certificate) []byte {
	if certificates == nil {
		return nil
	}
	var set jose.JSONWebKeySet
	for _, certificate := range certificates {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: certificate.PublicKey, Certificates: []*x509.Certificate{certificate}})
	}
	content, err := json.Marshal(set)
	if err != nil || len(content) > maxCopyContent {
		return nil
	}
	return content
}
