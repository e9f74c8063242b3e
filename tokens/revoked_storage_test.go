package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

const revocationsFolder = "mtls/default/revocations/"

func TestNamesOfRevocations(t *testing.T) {
	record := revokedRecord{client: digestOf(testURL, "a"), token: digestOf(testURL, "a", "1"), expires: 1893553445}
	name := record.name()
	if got, err := parseRevokedName(name); err != nil || got != record {
		t.Errorf("%s was read as %+v, %v", name, got, err)
	}
	all := revokedRecord{client: record.client, all: true, until: 5, expires: 1893553445}
	if got, err := parseRevokedName(all.name()); err != nil || got != all || !strings.HasSuffix(all.name(), "-until-5.json") {
		t.Errorf("%s was read as %+v, %v", all.name(), got, err)
	}
	for _, bad := range []string{
		"", ".json", "a.json", strings.ToUpper(name), name + "\n", "0" + name, "-" + name, "9999" + name, strings.Replace(name, "-", "_", 1), name[:len(name)-6] + ".json",
		strings.Replace(all.name(), "until-5", "until--5", 1), strings.Replace(all.name(), "until-5", "until-05", 1), strings.Replace(all.name(), "until-5", "until-", 1),
	} {
		if got, err := parseRevokedName(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

// TestDamagedRevocations checks that the name of an object is the revocation,
// so that nothing in its content can undo it.
func TestDamagedRevocations(t *testing.T) {
	storage := newStorage(t)
	mustRevoke(t, newTestRevoked(t, storage), anHour("a", "1"))
	name := revocationsFolder + objects(t, storage)[0]
	content, err := storage.Storage.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var written map[string]any
	if err := json.Unmarshal(content, &written); err != nil || written["client_id"] != "a" || written["jti"] != "1" || written["issuer"] != testURL || written["expires"] != "2030-01-02T04:04:05.000000678Z" {
		t.Errorf("an operator reads %s: %v", content, err)
	}
	for _, damage := range []string{"", "{", `{"client_id":"b"}`, "\x00"} {
		if err := storage.Storage.Store(t.Context(), name, []byte(damage)); err != nil {
			t.Fatal(err)
		}
		if !newTestRevoked(t, storage).Revoked("a", "1", testenv.Now) {
			t.Errorf("%q undoes the revocation", damage)
		}
	}
	if n := storage.Count("load"); n != 0 {
		t.Errorf("%d objects were read", n)
	}
}

// TestUnknownObjectsAreReportedOnce checks that objects that are not
// revocations are reported once and left alone. The others count, but the list
// does not count as read.
func TestUnknownObjectsAreReportedOnce(t *testing.T) {
	storage := newStorage(t)
	mustRevoke(t, newTestRevoked(t, storage), anHour("a", "1"))
	put := func(name, content string) {
		if err := storage.Storage.Store(t.Context(), revocationsFolder+name, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	put("v2-future.json", "{}")
	put("12345", "half a file") // certmagic's file storage, about to write
	var reports []string
	r, err := NewRevokedTokens(RevokedTokensConfig{
		Storage: storage, Realm: "default", Issuer: testURL, Now: testenv.NewClock().Now,
		Report: func(event, key string, err error) { reports = append(reports, fmt.Sprint(event, " ", key, ": ", err)) },
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := r.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "1 objects that are not revocations") {
			t.Errorf("error is %v", err)
		}
	}
	if len(reports) != 1 || !strings.HasPrefix(reports[0], "revocation_unreadable mtls/default/revocations/v2-future.json: the object's name is not that of a revocation") {
		t.Errorf("reported was %q", reports)
	}
	if !r.Known() || !r.Revoked("a", "1", testenv.Now) || r.Revoked("a", "2", testenv.Now) || !r.LastRead().IsZero() {
		t.Error("the other objects do not count")
	}
	if got := objects(t, storage); len(got) != 3 {
		t.Errorf("storage has %v", got)
	}
	if err := storage.Storage.Delete(t.Context(), revocationsFolder+"v2-future.json"); err != nil {
		t.Fatal(err)
	}
	if err := r.Refresh(t.Context()); err != nil || r.LastRead().IsZero() {
		t.Errorf("after it was removed: %v", err)
	}
}

// TestListingThatIsInterrupted covers certmagic's file storage, which reports
// that nothing is there when a file vanishes while it lists a folder.
func TestListingThatIsInterrupted(t *testing.T) {
	storage := newStorage(t)
	mustRevoke(t, newTestRevoked(t, storage), anHour("a", "1"))
	for _, tc := range []struct {
		interruptions int
		known         bool
	}{{1, true}, {19, true}, {20, false}} {
		left := tc.interruptions
		storage.OnList = func(context.Context, string) error {
			if left--; left >= 0 {
				return fs.ErrNotExist
			}
			return nil
		}
		r, err := NewRevokedTokens(RevokedTokensConfig{Storage: storage, Realm: "default", Issuer: testURL, Now: testenv.NewClock().Now}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Load(t.Context()); (err == nil) != tc.known || r.Known() != tc.known || !r.Revoked("a", "1", testenv.Now) {
			t.Errorf("%d interruptions: %v, known is %v", tc.interruptions, err, r.Known())
		}
	}
}

func TestLoadIsStoppedByItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := NewRevokedTokens(RevokedTokensConfig{Storage: newStorage(t), Realm: "default", Issuer: testURL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Load(ctx); !errors.Is(err, context.Canceled) || r.Known() {
		t.Errorf("error is %v, known is %v", err, r.Known())
	}
}

// TestObjectsThatCannotBeRemoved checks that a failed removal is reported once
// and does not affect the list.
func TestObjectsThatCannotBeRemoved(t *testing.T) {
	storage, clock := newStorage(t), testenv.NewClock()
	mustRevoke(t, startRevoked(t, storage, clock, nil), anHour("a", "1"))
	clock.Advance(expiredKeep * 10)
	var events []string
	r, err := NewRevokedTokens(RevokedTokensConfig{
		Storage: storage, Realm: "default", Issuer: testURL, Now: clock.Now,
		Report: func(event, _ string, _ error) { events = append(events, event) },
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	storage.OnDelete = func(context.Context, string) error { return fs.ErrPermission }
	for range 3 {
		if err := r.Refresh(t.Context()); err != nil || !r.Known() {
			t.Errorf("error is %v", err)
		}
	}
	storage.OnDelete = func(context.Context, string) error { panic("storage") }
	if err := r.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	storage.OnDelete = func(context.Context, string) error { return fs.ErrNotExist } // another node was faster
	if err := r.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	if !slices.Equal(events, []string{EventRevokedNotRemoved, EventRevokedNotRemoved}) || path.Ext(objects(t, storage)[0]) != ".json" {
		t.Errorf("reported was %q", events)
	}
}
