package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	storedKeyVersion = 1
	maxStoredKey     = 64 << 10 // bytes
)

// storedKey is the JSON object of one key.
type storedKey struct {
	Version    int       `json:"version"`
	Issuer     string    `json:"issuer"`
	Algorithm  Algorithm `json:"algorithm"`
	KeyID      string    `json:"kid"`
	Created    time.Time `json:"created"`     // RFC 3339
	PrivateKey string    `json:"private_key"` // PKCS#8 PEM
}

func encodeStoredKey(key *Key, issuer string) ([]byte, error) {
	private, err := encodePrivateKeyPEM(key.private)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(storedKey{
		Version:    storedKeyVersion,
		Issuer:     issuer,
		Algorithm:  key.algorithm,
		KeyID:      key.id,
		Created:    key.created,
		PrivateKey: string(private),
	}, "", "\t")
}

// decodeStoredKey returns the key of a stored object, or why it is not used,
// as an event and an error that never contains key material.
func decodeStoredKey(data []byte, issuer string) (*Key, string, error) {
	if len(data) > maxStoredKey {
		return nil, KeyUnreadable, fmt.Errorf("the object has %d bytes, more than any key", len(data))
	}
	var head struct {
		Version int    `json:"version"`
		Issuer  string `json:"issuer"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, KeyUnreadable, fmt.Errorf("the object does not parse: %v", err)
	}
	if head.Version != storedKeyVersion {
		return nil, KeyVersionUnknown, fmt.Errorf("the object has version %d, this release reads version %d", head.Version, storedKeyVersion)
	}
	if head.Issuer != issuer {
		return nil, KeyForeign, fmt.Errorf("the key belongs to issuer '%s', not to '%s'", head.Issuer, issuer)
	}

	// The version says which members there are: one more is a mistake.
	var stored storedKey
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil {
		return nil, KeyUnreadable, fmt.Errorf("the object does not parse: %v", err)
	}
	if stored.Created.IsZero() {
		return nil, KeyUnreadable, errors.New("the object does not say when the key was created")
	}
	alg, err := ParseAlgorithm(string(stored.Algorithm))
	if err != nil {
		return nil, KeyUnreadable, err
	}
	key, err := parsePrivateKeyPEM([]byte(stored.PrivateKey), alg, stored.Created)
	if err != nil {
		return nil, KeyUnreadable, err
	}
	if key.id != stored.KeyID {
		return nil, KeyUnreadable, fmt.Errorf("the object says kid '%s', its key has '%s'", stored.KeyID, key.id)
	}
	return key, "", nil
}
