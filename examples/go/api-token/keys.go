package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// algorithms are those that an issuer of this kind signs with, all of them with a private key.
var algorithms = []jose.SignatureAlgorithm{
	jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
}

// keySet holds the issuer's keys. go-oidc's own set forgets no key until it sees an unknown one, so a key that has been
// retired because it was stolen would stay good. This one reads the keys every 5 minutes, and at once for an unknown key.
type keySet struct {
	URL string `json:"jwks_uri"` // from the metadata

	client    *http.Client
	tokenType string
	keys      atomic.Pointer[jose.JSONWebKeySet]
	mu        sync.Mutex
	askedAt   time.Time // when a token had an unknown kid
}

// VerifySignature implements oidc.KeySet. It checks typ too, or a token of another kind would pass for an access token.
func (k *keySet) VerifySignature(_ context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, err
	}
	header := signed.Signatures[0].Protected
	if typ := header.ExtraHeaders[jose.HeaderType]; typ != k.tokenType {
		return nil, fmt.Errorf("typ is not %s", k.tokenType)
	}
	found := k.keys.Load().Key(header.KeyID)
	if len(found) == 0 {
		if err := k.readForUnknown(); err != nil {
			return nil, err
		}
		if found = k.keys.Load().Key(header.KeyID); len(found) == 0 {
			return nil, errors.New("the issuer has no such key")
		}
	}
	return signed.Verify(found[0])
}

// readRegularly reads the keys every 5 minutes. If the issuer is down, the keys of before stay in use.
func (k *keySet) readRegularly() {
	for range time.Tick(5 * time.Minute) {
		if err := k.read(); err != nil {
			log.Printf("keys not read again: %v", err)
		}
	}
}

// readForUnknown reads the keys, but not more often than every 10 seconds, because anybody can send an unknown kid.
func (k *keySet) readForUnknown() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.askedAt) < 10*time.Second {
		return nil
	}
	k.askedAt = time.Now()
	return k.read()
}

func (k *keySet) read() error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, k.URL, nil)
	if err != nil {
		return err
	}
	response, err := k.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	keys := new(jose.JSONWebKeySet)
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(keys); err != nil || len(keys.Keys) == 0 {
		return fmt.Errorf("%s: %s, without keys", k.URL, response.Status)
	}
	k.keys.Store(keys)
	return nil
}
