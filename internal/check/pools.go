package check

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// localPool returns a trust pool, or any other in place of one that is not in files or in
// the configuration.
func (c *checker) localPool(place string, raw json.RawMessage) json.RawMessage {
	var pool struct {
		Provider string            `json:"provider"`
		Sources  []json.RawMessage `json:"sources"`
	}
	if json.Unmarshal(raw, &pool) != nil {
		return raw
	}
	local := []string{"", "file", "inline", "system", "combined"}
	if _, err := caddy.GetModule("tls.ca_pool.source." + pool.Provider); err == nil && !slices.Contains(local, pool.Provider) {
		c.findings.Add(CodeUnread, place, "the CAs of '%s' are not read, so nothing is said about them", pool.Provider)
		return anyPool()
	}
	for _, source := range pool.Sources {
		if replaced := c.localPool(place, source); string(replaced) != string(source) {
			return replaced
		}
	}
	return raw
}

// anyCA is in place of CAs that are not read here. Nobody has its key.
var anyCA = sync.OnceValue(func() *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // never (crypto/rand)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "caddy mtls check: a CA that is not read"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
})

// anyPool is a trust pool with that CA.
var anyPool = sync.OnceValue(func() json.RawMessage {
	raw, _ := json.Marshal(map[string]any{"provider": "inline", "trusted_ca_certs": [][]byte{anyCA().Raw}})
	return raw
})
