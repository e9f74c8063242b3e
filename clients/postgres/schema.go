package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// schema creates the default table and what belongs to it. Triggers have the same names
// in every table.
//
//go:embed schema.sql
var schema string

// Schema returns the SQL that creates a table of clients and what belongs to it. Run
// again, it keeps the clients.
func Schema(table string) (string, error) {
	name, err := parseTable(table)
	if err != nil {
		return "", err
	}
	return name.schema(), nil
}

func (t tableName) schema() string {
	// an index is in the schema of its table, and so its name cannot have one
	local := func(name tableName) string { return pgx.Identifier{name.base()}.Sanitize() }
	return strings.NewReplacer( // which prefers what comes first here
		"mtls_clients_deleted_changed", local(t.with("_deleted_changed")),
		"mtls_clients_changed", local(t.with("_changed")),
		"mtls_clients_deleted", t.deleted().String(),
		"mtls_clients_mark", t.with("_mark").String(),
		"mtls_clients_notify", t.with("_notify").String(),
		"mtls_clients", t.String(),
	).Replace(schema)
}

// InitDB creates a table of clients and what belongs to it, as [Schema] does, and checks
// that a [Source] can use it.
func InitDB(ctx context.Context, dsn, table string) error {
	name, err := parseTable(table)
	if err != nil {
		return err
	}
	config, err := parseDSN(dsn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	conn, err := connect(ctx, config)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('mtls clients init-db'))"); err != nil {
			return err
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, name.schema()).ReadAll(); err != nil {
			return fmt.Errorf("creating table %s: %w", name.shown(), err)
		}
		state, err := inspect(ctx, tx, name, true) // whoever creates it need not be who uses it
		if err != nil {
			return err
		}
		return state.checkTriggers(name)
	})
}

// initTimeout bounds [InitDB], which may have to build an index.
const initTimeout = 10 * time.Minute
