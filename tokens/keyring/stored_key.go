package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	storedKeyVersion = 2
	maxStoredKey     = 64 << 10 // bytes
)

// storedKey is the JSON object of one key. Version 1 has neither signs_from nor
// longest_token: such a key signs from its creation.
type storedKey struct {
	Version      int        `json:"version"`
	Issuer       string     `json:"issuer"`
	Algorithm    Algorithm  `json:"algorithm"`
	KeyID        string     `json:"kid"`
	Created      time.Time  `json:"created"`                 // RFC 3339
	SignsFrom    *time.Time `json:"signs_from,omitempty"`    // RFC 3339
	LongestToken int64      `json:"longest_token,omitempty"` // seconds
	PrivateKey   string     `json:"private_key"`             // PKCS#8 PEM
}

func encodeStoredKey(key managedKey, issuer string) ([]byte, error) {
	private, err := encodePrivateKeyPEM(key.private)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(storedKey{
		Version:      storedKeyVersion,
		Issuer:       issuer,
		Algorithm:    key.algorithm,
		KeyID:        key.id,
		Created:      key.created,
		SignsFrom:    &key.signsFrom,
		LongestToken: int64((key.longest + time.Second - 1) / time.Second),
		PrivateKey:   string(private),
	}, "", "\t")
}

// decodeStoredKey returns the key of a stored object, or why it is not used,
// as an event and an error that never contains key material.
func decodeStoredKey(data []byte, issuer string) (managedKey, string, error) {
	none := managedKey{}
	if len(data) > maxStoredKey {
		return none, EventUnreadable, fmt.Errorf("the object has %d bytes, more than any key", len(data))
	}
	var head struct {
		Version int    `json:"version"`
		Issuer  string `json:"issuer"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return none, EventUnreadable, fmt.Errorf("the object does not parse: %v", err)
	}
	if head.Version < 1 || head.Version > storedKeyVersion {
		return none, EventVersionUnknown, fmt.Errorf("the object has version %d, this release reads versions 1 to %d", head.Version, storedKeyVersion)
	}
	if head.Issuer != issuer {
		return none, EventForeign, fmt.Errorf("the key belongs to issuer '%s', not to '%s'", head.Issuer, issuer)
	}

	// The version says which members there are: one more is a mistake.
	var stored storedKey
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil {
		return none, EventUnreadable, fmt.Errorf("the object does not parse: %v", err)
	}
	if err := stored.complete(); err != nil {
		return none, EventUnreadable, err
	}
	alg, err := ParseAlgorithm(string(stored.Algorithm))
	if err != nil {
		return none, EventUnreadable, err
	}
	key, err := parsePrivateKeyPEM([]byte(stored.PrivateKey), alg, stored.Created)
	if err != nil {
		return none, EventUnreadable, err
	}
	if key.id != stored.KeyID {
		return none, EventUnreadable, fmt.Errorf("the object says kid '%s', its key has '%s'", stored.KeyID, key.id)
	}
	return newManagedKey(key, *stored.SignsFrom, time.Duration(stored.LongestToken)*time.Second), "", nil
}

// complete checks the members that say how a key lives, and fills in what
// version 1 does not say.
func (s *storedKey) complete() error {
	if s.Created.IsZero() {
		return errors.New("the object does not say when the key was created")
	}
	if s.Version == 1 {
		if s.SignsFrom != nil || s.LongestToken != 0 {
			return errors.New("the object has members that version 1 has not")
		}
		s.SignsFrom, s.LongestToken = &s.Created, int64(oldLongestToken/time.Second)
	}
	if s.SignsFrom == nil || s.SignsFrom.IsZero() {
		return errors.New("the object does not say from when the key signs")
	}
	if s.LongestToken < 1 || s.LongestToken > int64(maxLongestToken/time.Second) {
		return errors.New("the object does not say how long the tokens of the key last")
	}
	return nil
}
