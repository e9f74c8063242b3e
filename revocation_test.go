package mtlsauth

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// revokedBy returns a realm with a CA as its trust pool and this revocation block.
func revokedBy(t *testing.T, dir string, ca *testpki.CA, revocation map[string]any) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"trust_pool": map[string]any{"provider": "file", "pem_files": []string{testtool.WriteTemp(t, dir, "ca.pem", ca.PEM())}},
		"clients":    []map[string]any{{"client_id": "a", "tls_client_auth_subject_dn": "CN=a"}},
		"revocation": revocation,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDenyFileDoesNotWaitForACRL checks that a change of the deny file takes effect
// while a large CRL is still being read.
func TestDenyFileDoesNotWaitForACRL(t *testing.T) {
	dir, ca := t.TempDir(), testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, testpki.CommonName("a")).Cert
	crl, deny := testtool.WriteTemp(t, dir, "a.crl", testpki.CRL(t, ca, 1, time.Now().Add(time.Hour))), testtool.WriteTemp(t, dir, "deny", nil)
	app := provisionRealm(t, revokedBy(t, dir, ca, map[string]any{"crl": []string{crl}, "deny": deny}))

	// a hook in the logger makes the reading of the CRL wait
	reading, denied, end := make(chan struct{}), make(chan struct{}), make(chan struct{})
	isRead, isDenied := sync.OnceFunc(func() { close(reading) }), sync.OnceFunc(func() { close(denied) })
	core, _ := observer.New(zapcore.DebugLevel)
	realm := app.Realms[defaultRealm]
	realm.revocation.logger = zap.New(zapcore.RegisterHooks(core, func(entry zapcore.Entry) error {
		switch entry.Message {
		case "revocation source read":
			isRead()
			<-end
		case "deny file in force":
			isDenied()
		}
		return nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer close(end)
	if err := os.WriteFile(crl, testpki.CRL(t, ca, 2, time.Now().Add(time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	realm.startBackground(ctx)
	wait := func(what string, happened chan struct{}) {
		t.Helper()
		select {
		case <-happened:
		case <-time.After(time.Minute):
			t.Fatal(what)
		}
	}
	wait("the CRL is not read", reading)
	if err := os.WriteFile(deny, []byte("thumbprint "+testpki.HashOf(leaf.Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	wait("the deny file waits for the CRL", denied)
	if realm.revocation.checker.CheckDenied(leaf) == nil {
		t.Error("the certificate is not denied")
	}
}
