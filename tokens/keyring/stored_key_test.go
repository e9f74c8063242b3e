package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

func TestStoredKeyFormat(t *testing.T) {
	storage := newStorage(t)
	store, log := newTestStore(t, storage)
	ring, err := loadOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	key := ring.Signing()
	name := "mtls/default/keys/" + strings.ToLower(key.ID) + ".json"
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
		"version": 2.0, "issuer": testURL, "algorithm": "ES256", "kid": key.ID, "created": "2030-01-02T03:04:05Z",
		"signs_from": "2030-01-02T03:04:05Z", "longest_token": 3600.0,
	}
	if fmt.Sprint(object) != fmt.Sprint(want) {
		t.Errorf("stored %v, want %v", object, want)
	}
	if again, err := ParsePrivateKeyPEM([]byte(private), ES256); err != nil || again.ID != key.ID {
		t.Errorf("private_key does not hold the key: %v", err)
	}
	if !slices.Equal(log.all, []string{EventCreated}) {
		t.Errorf("reported %v", log.all)
	}
	if storage.Count("lock") != 1 || storage.Count("unlock") != 1 {
		t.Error("the key was not made under a lock, or the lock was left")
	}
}

func TestObjectsThatAreSkipped(t *testing.T) {
	good := mustKey(t, ES256, testenv.Now)
	other := mustKey(t, ES256, testenv.Now)
	object := func(change func(map[string]any)) []byte {
		data, err := encodeStoredKey(scheduledKey{good, testenv.Now, time.Hour}, testURL)
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
		"empty":                {nil, EventUnreadable},
		"garbage":              {[]byte("\x00\xff"), EventUnreadable},
		"cut off":              {set("x", 1)[:100], EventUnreadable},
		"null":                 {[]byte("null"), EventVersionUnknown},
		"no object":            {[]byte(`[]`), EventUnreadable},
		"something after it":   {append(set("version", 2), "{}"...), EventUnreadable},
		"too large":            {bytes.Repeat([]byte(" "), maxStoredKey+1), EventUnreadable},
		"version 3":            {set("version", 3), EventVersionUnknown},
		"version 1":            {set("version", 1), EventVersionUnknown},
		"no start":             {without("signs_from"), EventUnreadable},
		"a start of zero":      {set("signs_from", "0001-01-01T00:00:00Z"), EventUnreadable},
		"no lifetime":          {without("longest_token"), EventUnreadable},
		"a negative lifetime":  {set("longest_token", -1), EventUnreadable},
		"an endless lifetime":  {set("longest_token", 1<<62), EventUnreadable},
		"no version":           {without("version"), EventVersionUnknown},
		"another issuer":       {set("issuer", testURL+"/"), EventForeign},
		"no issuer":            {without("issuer"), EventForeign},
		"unknown member":       {set("retired", true), EventUnreadable},
		"another kid":          {set("kid", other.ID), EventUnreadable},
		"no kid":               {without("kid"), EventUnreadable},
		"algorithm none":       {set("algorithm", "none"), EventUnreadable},
		"another algorithm":    {set("algorithm", "RS256"), EventUnreadable},
		"no algorithm":         {without("algorithm"), EventUnreadable},
		"no time":              {without("created"), EventUnreadable},
		"no time of this sort": {set("created", "yesterday"), EventUnreadable},
		"no key":               {without("private_key"), EventUnreadable},
		"a damaged key":        {set("private_key", "-----BEGIN PRIVATE KEY-----\n"), EventUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			storage := newStorage(t)
			store, log := newTestStore(t, storage)
			object := putRaw(t, store, good.ID, tc.data)

			ring, err := loadOrCreate(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			if len(ring.published) != 1 || ring.Signing().ID == good.ID {
				t.Error("the object was used")
			}
			if !slices.Equal(log.all, []string{tc.event, EventCreated}) {
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
	store, log := newTestStore(t, newStorage(t))
	key := mustKey(t, ES256, testenv.Now)
	data, err := encodeStoredKey(scheduledKey{key, testenv.Now, time.Hour}, testURL)
	if err != nil {
		t.Fatal(err)
	}
	putRaw(t, store, "backup", data)
	if _, err := loadRing(t.Context(), store); !errors.Is(err, errNoKey) || !slices.Equal(log.all, []string{EventUnreadable}) {
		t.Errorf("error %v, reported %v", err, log.all)
	}
}

func TestOtherFilesAreIgnored(t *testing.T) {
	storage := newStorage(t)
	store, log := newTestStore(t, storage)
	for _, name := range []string{"README", "x.json.tmp", "folder/x.json"} {
		if err := storage.Store(t.Context(), store.folder()+"/"+name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := loadRing(t.Context(), store); !errors.Is(err, errNoKey) || len(log.all) != 0 {
		t.Errorf("error %v, reported %v", err, log.all)
	}
}
