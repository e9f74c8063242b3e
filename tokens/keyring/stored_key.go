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
	maxRetirement    = 4 << 10  // bytes
)

// storedKey is the JSON object of one key.
type storedKey struct {
	Version      int       `json:"version"`
	Issuer       string    `json:"issuer"`
	Algorithm    Algorithm `json:"algorithm"`
	KeyID        string    `json:"kid"`
	Created      time.Time `json:"created"`       // RFC 3339
	SignsFrom    time.Time `json:"signs_from"`    // RFC 3339
	LongestToken int64     `json:"longest_token"` // seconds
	PrivateKey   string    `json:"private_key"`   // PKCS#8 PEM
}

func encodeStoredKey(key scheduledKey, issuer string) ([]byte, error) {
	private, err := encodePrivateKeyPEM(key.private)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(storedKey{
		Version:      storedKeyVersion,
		Issuer:       issuer,
		Algorithm:    key.Algorithm,
		KeyID:        key.ID,
		Created:      key.created,
		SignsFrom:    key.signsFrom,
		LongestToken: int64((key.longest + time.Second - 1) / time.Second),
		PrivateKey:   string(private),
	}, "", "\t")
}

// decodeStoredKey returns the key of a stored object, or why it cannot be
// used: an event, and an error that never contains key material.
func decodeStoredKey(data []byte, issuer string) (scheduledKey, string, error) {
	none := scheduledKey{}
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
	if head.Version != storedKeyVersion {
		return none, EventVersionUnknown, fmt.Errorf("the object has version %d; this release reads version %d", head.Version, storedKeyVersion)
	}
	if head.Issuer != issuer {
		return none, EventForeign, fmt.Errorf("the key belongs to issuer '%s', not to '%s'", head.Issuer, issuer)
	}

	// The version determines the members, so an unknown one is a mistake.
	var stored storedKey
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil {
		return none, EventUnreadable, fmt.Errorf("the object does not parse: %v", err)
	}
	if err := stored.checkTimes(); err != nil {
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
	if key.ID != stored.KeyID {
		return none, EventUnreadable, fmt.Errorf("the object says kid '%s', its key has '%s'", stored.KeyID, key.ID)
	}
	return scheduledKey{key, stored.SignsFrom, time.Duration(stored.LongestToken) * time.Second}, "", nil
}

// checkTimes returns an error if a time or lifetime is missing or out of
// range.
func (s *storedKey) checkTimes() error {
	switch {
	case s.Created.IsZero():
		return errors.New("the object does not say when the key was created")
	case s.SignsFrom.IsZero():
		return errors.New("the object does not say when the key begins to sign")
	case s.LongestToken < 1 || s.LongestToken > int64(maxLongestToken/time.Second):
		return errors.New("the object does not say how long the tokens of the key last")
	}
	return nil
}

// storedRetirement is the JSON object that retires a key.
type storedRetirement struct {
	KeyID   string    `json:"kid"`
	Retired time.Time `json:"retired"` // RFC 3339
}

// decodeRetirement returns when a key was retired.
func decodeRetirement(data []byte) (time.Time, error) {
	var stored storedRetirement
	if len(data) > maxRetirement {
		return time.Time{}, fmt.Errorf("the object has %d bytes, more than any retirement", len(data))
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return time.Time{}, err
	}
	if stored.Retired.IsZero() {
		return time.Time{}, errors.New("the object does not say when the key was retired")
	}
	return stored.Retired, nil
}
