package httpsource

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

func newCopyFixture(t *testing.T) (*fixture, string) {
	path := filepath.Join(t.TempDir(), "clients.copy")
	return newFixture(t, func(c *Config) { c.KeepCopy = path }), path
}

// again is a source of the same server that starts anew.
func (f *fixture) again() *fixture {
	f.t.Helper()
	again := *f
	var err error
	if again.Source, err = New(f.config); err != nil {
		f.t.Fatal(err)
	}
	again.inForce, again.replaced = "", 0
	return &again
}

func (f *fixture) wantCopy(inForce, want string) {
	f.t.Helper()
	again := f.again()
	err := again.LoadCopy(f.t.Context(), again)
	if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
		f.t.Errorf("%v, want %q", err, want)
	}
	if again.inForce != inForce || errors.Is(err, clients.ErrUnavailable) {
		f.t.Errorf("in force: %s, want %s; %v", again.inForce, inForce, err)
	}
}

// TestCopy: the last document that was put in force is kept, for its owner alone.
func TestCopy(t *testing.T) {
	f, path := newCopyFixture(t)
	f.wantCopy("", "keep_copy: '"+path+"' has not been written yet")
	f.sends(`[{"a":1}]`)
	f.fetches("")
	f.wantCopy(`line 1: {"a":1}`, "")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || !info.ModTime().Equal(f.now) {
		t.Errorf("%v, %v", info, err)
	}
	f.refuse = errors.New("another client has it")
	f.sends(`[{"b":2}]`)
	f.fetches("another client has it")
	f.refuse = nil
	f.sends("[")
	f.fetches("the array does not end")
	f.wantCopy(`line 1: {"a":1}`, "")
	f.sends("{\"client_id\":\"a\"}\n")
	f.fetches("")
	f.wantCopy(`line 1: {"client_id":"a"}`, "")
	f.sends("[]")
	f.fetches("")
	f.wantCopy("", "")
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestAgeOfCopy: the age of a copy is how long ago the server last had its document.
func TestAgeOfCopy(t *testing.T) {
	f, path := newCopyFixture(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", "1")
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "[]")
	}
	f.fetches("")
	f.now = f.now.Add(time.Hour)
	f.fetches("")
	f.want("", 1)
	f.now = f.now.Add(time.Minute)
	f.wantCopy("", "")
	logs := f.logs.TakeAll()
	if len(logs) != 1 || logs[0].Message != "server of clients unavailable; clients come from the copy" || logs[0].ContextMap()["age"] != time.Minute {
		t.Errorf("%v", logs)
	}
	// somebody has removed it
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.fetches("")
	f.fetches("")
	f.wantCopy("", "")
}

// TestUnchangedCopy: a document that is sent again is not written again.
func TestUnchangedCopy(t *testing.T) {
	f, path := newCopyFixture(t)
	f.sends("[]")
	f.fetches("")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(time.Hour)
	f.fetches("")
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(f.now) {
		t.Errorf("%v, %v", after, err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestDamagedCopy: a copy that is not as it was written is an error that says so.
func TestDamagedCopy(t *testing.T) {
	f, path := newCopyFixture(t)
	f.sends("{\"client_id\":\"a\"}\n{\"client_id\":\"b\"}\n")
	f.fetches("")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int) string {
		text := []byte(string(whole))
		text[at] ^= 1
		return string(text)
	}
	for text, want := range map[string]string{
		"":                               "it is not a copy of clients",
		"[]":                             "it is not a copy of clients",
		string(whole[titleBytes:]):       "it is not a copy of clients",
		string(whole[:100]):              "it is not a copy of clients",
		string(whole[:titleBytes]):       "it is damaged",
		string(whole[:len(whole)-1]):     "it is damaged",
		string(whole[:titleBytes+18]):    "it is damaged",
		string(whole) + "\n":             "it is damaged",
		changed(titleBytes + 15):         "it is damaged",
		string(make([]byte, len(whole))): "it is not a copy of clients",
		strings.Replace(string(whole), "clients.json", "clients.jsom", 1): `it is the copy of "http:https://127.0.0.1:`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f.wantCopy("", "keep_copy: '"+path+"': ")
		f.wantCopy("", want)
		f.wantCopy("", "; remove it, and wait for the server")
	}
}

// TestUnwritableCopy: that the copy cannot be written is reported once, and its end too.
func TestUnwritableCopy(t *testing.T) {
	f, path := newCopyFixture(t)
	f.config.KeepCopy = filepath.Join(path, "copy") // in a folder that does not exist
	f.sends(`[{"a":1}]`)
	f.fetches("")
	f.fetches("")
	f.want(`line 1: {"a":1}`, 2)
	logs := f.logs.TakeAll()
	if len(logs) != 1 || logs[0].Message != "writing the copy of clients failed" {
		t.Errorf("%v", logs)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	f.fetches("")
	logs = f.logs.TakeAll()
	if len(logs) != 1 || logs[0].Message != "writing the copy of clients works again" {
		t.Errorf("%v", logs)
	}
	f.wantCopy(`line 1: {"a":1}`, "")
}

// TestWithoutCopy: a source that keeps no copy says so.
func TestWithoutCopy(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.LoadCopy(t.Context(), f); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
