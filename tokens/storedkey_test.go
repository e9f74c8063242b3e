package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStoredKeyFormat(t *testing.T) {
	storage := newStorage(t)
	store, log := newStore(t, storage)
	ring, err := store.LoadOrCreate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := ring.Signing()
	name := "mtls/default/keys/" + strings.ToLower(key.ID()) + ".json"
	data, err := storage.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	private, _ := object["private_key"].(string)
	delete(object, "private_key")
	want := map[string]any{
		"version": 2.0, "issuer": testURL, "algorithm": "ES256", "kid": key.ID(), "created": "2030-01-02T03:04:05Z",
		"signs_from": "2030-01-02T03:04:05Z", "longest_token": 3600.0,
	}
	if fmt.Sprint(object) != fmt.Sprint(want) {
		t.Errorf("stored %v, want %v", object, want)
	}
	if again, err := ParsePrivateKeyPEM([]byte(private), ES256); err != nil || again.ID() != key.ID() {
		t.Errorf("private_key does not hold the key: %v", err)
	}
	if !slices.Equal(log.all, []string{KeyCreated}) {
		t.Errorf("reported %v", log.all)
	}
	if storage.count("lock") != 1 || storage.count("unlock") != 1 {
		t.Error("the key was not made under a lock, or the lock was left")
	}
}

func TestObjectsThatAreSkipped(t *testing.T) {
	good := mustKey(t, ES256, testNow)
	other := mustKey(t, ES256, testNow)
	object := func(change func(map[string]any)) []byte {
		data, err := encodeStoredKey(newManagedKey(good, testNow, time.Hour), testURL)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]any
		if err := json.Unmarshal(data, &members); err != nil {
			t.Fatal(err)
		}
		change(members)
		if data, err = json.Marshal(members); err != nil {
			t.Fatal(err)
		}
		return data
	}
	set := func(name string, value any) []byte {
		return object(func(m map[string]any) { m[name] = value })
	}
	without := func(name string) []byte {
		return object(func(m map[string]any) { delete(m, name) })
	}
	for name, tc := range map[string]struct {
		data  []byte
		event string
	}{
		"empty":                {nil, KeyUnreadable},
		"garbage":              {[]byte("\x00\xff"), KeyUnreadable},
		"cut off":              {set("x", 1)[:100], KeyUnreadable},
		"null":                 {[]byte("null"), KeyVersionUnknown},
		"no object":            {[]byte(`[]`), KeyUnreadable},
		"something after it":   {append(set("version", 2), "{}"...), KeyUnreadable},
		"too large":            {bytes.Repeat([]byte(" "), maxStoredKey+1), KeyUnreadable},
		"version 3":            {set("version", 3), KeyVersionUnknown},
		"members of version 2": {set("version", 1), KeyUnreadable},
		"no start":             {without("signs_from"), KeyUnreadable},
		"a start of zero":      {set("signs_from", "0001-01-01T00:00:00Z"), KeyUnreadable},
		"no lifetime":          {without("longest_token"), KeyUnreadable},
		"a negative lifetime":  {set("longest_token", -1), KeyUnreadable},
		"an endless lifetime":  {set("longest_token", 1<<62), KeyUnreadable},
		"no version":           {without("version"), KeyVersionUnknown},
		"another issuer":       {set("issuer", testURL+"/"), KeyForeign},
		"no issuer":            {without("issuer"), KeyForeign},
		"unknown member":       {set("retired", true), KeyUnreadable},
		"another kid":          {set("kid", other.ID()), KeyUnreadable},
		"no kid":               {without("kid"), KeyUnreadable},
		"algorithm none":       {set("algorithm", "none"), KeyUnreadable},
		"another algorithm":    {set("algorithm", "RS256"), KeyUnreadable},
		"no algorithm":         {without("algorithm"), KeyUnreadable},
		"no time":              {without("created"), KeyUnreadable},
		"no time of this sort": {set("created", "yesterday"), KeyUnreadable},
		"no key":               {without("private_key"), KeyUnreadable},
		"a damaged key":        {set("private_key", "-----BEGIN PRIVATE KEY-----\n"), KeyUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			storage := newStorage(t)
			store, log := newStore(t, storage)
			object := putRaw(t, store, good.ID(), tc.data)

			ring, err := store.LoadOrCreate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(ring.Keys()) != 1 || ring.Signing().ID() == good.ID() {
				t.Error("the object was used")
			}
			if !slices.Equal(log.all, []string{tc.event, KeyCreated}) {
				t.Errorf("reported %v, want %s once", log.all, tc.event)
			}
			if len(log.err) > 0 && strings.Contains(fmt.Sprint(log.err[0]), "PRIVATE KEY-----\n") {
				t.Errorf("the report holds key material: %v", log.err[0])
			}
			if after, err := storage.Load(t.Context(), object); err != nil || !bytes.Equal(after, tc.data) {
				t.Errorf("the object was changed: %v", err)
			}
		})
	}
}

func TestObjectUnderAnotherNameIsSkipped(t *testing.T) {
	store, log := newStore(t, newStorage(t))
	key := mustKey(t, ES256, testNow)
	data, err := encodeStoredKey(newManagedKey(key, testNow, time.Hour), testURL)
	if err != nil {
		t.Fatal(err)
	}
	putRaw(t, store, "backup", data)
	if _, err := store.Load(t.Context()); !errors.Is(err, ErrNoKey) || !slices.Equal(log.all, []string{KeyUnreadable}) {
		t.Errorf("error %v, reported %v", err, log.all)
	}
}

func TestOtherFilesAreIgnored(t *testing.T) {
	storage := newStorage(t)
	store, log := newStore(t, storage)
	for _, name := range []string{"README", "x.json.tmp", "folder/x.json"} {
		if err := storage.Store(t.Context(), store.prefix()+"/"+name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Load(t.Context()); !errors.Is(err, ErrNoKey) || len(log.all) != 0 {
		t.Errorf("error %v, reported %v", err, log.all)
	}
}
