package cluster_test

import (
	"context"
	"encoding/pem"
	"iter"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/jackc/pgx/v5"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/postgres"
	"github.com/caddymtls/caddy-mtls-auth/clients/storagesource"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
)

// serveFile serves the file of clients from a server of its own.
func (f *figures) serveFile(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(f.Dir, "clients.jsonl"))
	}))
	t.Cleanup(server.Close)
	f.Write("platform.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return "http " + server.URL + "/clients {\n\t\t\ttimeout 10m\n\t\t}\n\t\tfetch {\n\t\t\ttrust_pool file \"@DIR@/platform.pem\"\n\t\t}"
}

// fillStorage puts the records into storage.
func (f *figures) fillStorage(t *testing.T) {
	t.Helper()
	entries := func(yield func(clients.Entry, error) bool) {
		for record := range f.records(0) {
			if !yield(clients.Entry{Record: []byte(record)}, nil) {
				return
			}
		}
	}
	storage := &certmagic.FileStorage{Path: filepath.Join(f.Dir, "storage")}
	if err := storagesource.Fill(t.Context(), storage, "default", entries); err != nil {
		t.Fatal(err)
	}
}

// fillPostgres puts the records into a database, and returns its DSN.
func (f *figures) fillPostgres(t *testing.T) string {
	t.Helper()
	dsn := testpg.Start(t).Database(t)
	if err := postgres.InitDB(t.Context(), dsn, postgres.DefaultTable); err != nil {
		t.Fatal(err)
	}
	next, stop := iter.Pull(f.records(0))
	defer stop()
	id := regexp.MustCompile(`"client_id":"([^"]*)"`)
	rows := pgx.CopyFromFunc(func() ([]any, error) {
		record, ok := next()
		if !ok {
			return nil, nil
		}
		return []any{id.FindStringSubmatch(record)[1], []byte(record)}, nil
	})
	_, err := testpg.Connect(t, dsn).CopyFrom(context.Background(), pgx.Identifier{postgres.DefaultTable}, []string{"client_id", "record"}, rows)
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}
