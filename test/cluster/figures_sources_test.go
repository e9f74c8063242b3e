package cluster_test

import (
	"context"
	"iter"
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
