package trustpool

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestUnreadableCAInStorage checks that a certificate that Go cannot read costs the others
// of a storage key nothing: it is left out with one warning, not one at each refresh, and
// a CA that is taken out is no longer trusted. What is no list of CAs is an error.
func TestUnreadableCAInStorage(t *testing.T) {
	first, second := testpki.MustCA(t), testpki.MustCA(t)
	unreadable := testpki.UnreadablePEM(t, testpki.NegativeSerial, "Old CA")
	root := t.TempDir()
	path := filepath.Join(root, "cas.pem")
	core, logs := observer.New(zap.WarnLevel)
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	open := func(keys string) (*Pool, error) {
		raw := `{"provider":"storage","storage":{"module":"file_system","root":"` + root + `"}` + keys + `}`
		return Load(Config{
			Context: ctx, Word: "trust_pool", Raw: json.RawMessage(raw),
			Now: time.Now, Logger: zap.New(core), Use: func(*Trust) error { return nil },
		})
	}
	for keys, want := range map[string]string{
		``:                                "no key is named; add keys",
		`,"pem_keys":["missing"]`:         "storage key 'missing': ",
		`,"pem_keys":["a"],"unknown":[1]`: "unknown",
	} {
		_, err := open(keys)
		wantError(t, err, want)
	}
	writeFile(t, path, unreadable)
	_, err := open(`,"pem_keys":["cas.pem"]`)
	wantError(t, err, "storage key 'cas.pem' has no CA certificate that can be read; line 1: ")

	writeFile(t, path, first.PEM(), unreadable, second.PEM())
	pool, err := open(`,"pem_keys":["cas.pem"]`)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	told := logs.TakeAll()
	if len(pool.Trust().Certificates) != 2 || len(told) != 1 || told[0].ContextMap()["file"] != "cas.pem" || told[0].ContextMap()["certificate"] != int64(2) {
		t.Errorf("%d CAs, told %v", len(pool.Trust().Certificates), told)
	}
	writeFile(t, path, unreadable[:100], second.PEM())
	pool.sources[0].loadAgain(time.Now())
	if told := logs.TakeAll(); len(pool.Trust().Certificates) != 2 || len(told) != 1 || told[0].Level != zap.ErrorLevel {
		t.Errorf("cut off: %d CAs, told %v", len(pool.Trust().Certificates), told)
	}
	for range 2 {
		writeFile(t, path, second.PEM(), unreadable)
		pool.sources[0].loadAgain(time.Now())
	}
	if cas := pool.Trust().Certificates; len(cas) != 1 || !cas[0].Equal(second.Cert) {
		t.Errorf("%d CAs after one was taken out", len(cas))
	}
	if told := logs.TakeAll(); len(told) != 0 {
		t.Errorf("told %v at refreshes", told)
	}
}
