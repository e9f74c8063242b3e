package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// minVersion is the oldest major version of PostgreSQL that has all that is needed.
const minVersion = 14

// tableError says that the table is not as it must be, or that the role may not use it.
type tableError struct{ text string }

func (e *tableError) Error() string { return e.text }

func tableErrorf(format string, args ...any) error {
	return &tableError{fmt.Sprintf(format, args...)}
}

// tableState is what a connection leads to.
type tableState struct {
	oid     uint32   // of the table; the channel of its notifications has it
	backend uint32   // the process that serves the connection
	started string   // when the server was started
	missing []string // the triggers that are not there, or disabled
}

// channel is the channel of the table's notifications.
func (s *tableState) channel() string { return fmt.Sprint("mtls:", s.oid) }

// same reports whether two connections lead to the same table of the same server, which
// has not been restarted.
func (s *tableState) same(other *tableState) bool {
	return other != nil && s.oid == other.oid && s.started == other.started
}

// triggers are the names of the triggers that a table must have. Those with this prefix
// note what has changed, and the others notify.
var triggers = []string{"mtls_mark", "mtls_mark_truncate", "mtls_notify", "mtls_notify_truncate"}

const markPrefix = "mtls_mark"

// marks reports whether it can be told from the table what has changed.
func (s *tableState) marks() bool {
	return !slices.ContainsFunc(s.missing, func(name string) bool { return strings.HasPrefix(name, markPrefix) })
}

// checkTriggers checks that changes are noted and notified of.
func (s *tableState) checkTriggers(table tableName) error {
	if len(s.missing) == 0 {
		return nil
	}
	return tableErrorf("table %s: trigger %s is missing or disabled; %s", table.shown(), strings.Join(s.missing, ", "), table.remedy())
}

// inspect checks that the table is as [Schema] creates it, but for the triggers, and that
// the role may use it.
func inspect(ctx context.Context, tx pgx.Tx, table tableName, readOnly bool) (*tableState, error) {
	state, err := look(ctx, tx, table)
	if err != nil {
		return nil, err
	}
	deleted, err := lookUp(ctx, tx, table.deleted())
	if err != nil {
		return nil, err
	}
	for _, want := range []struct {
		table tableName
		oid   uint32
		types map[string]string
	}{
		{table, state.oid, map[string]string{"client_id": "text", "record": "jsonb", "changed": "xid8"}},
		{table.deleted(), deleted, map[string]string{"client_id": "text", "changed": "xid8", "deleted_at": "timestamp with time zone"}},
	} {
		if err := checkColumns(ctx, tx, want.table, want.oid, want.types); err != nil {
			return nil, err
		}
	}
	if err := checkKey(ctx, tx, table, state.oid); err != nil {
		return nil, err
	}
	privileges := []string{"SELECT"}
	if !readOnly {
		privileges = append(privileges, "INSERT", "UPDATE", "DELETE")
	}
	if err := checkPrivileges(ctx, tx, table, state.oid, privileges, readOnly); err != nil {
		return nil, err
	}
	if !readOnly {
		privileges = []string{"SELECT", "INSERT", "DELETE"}
	}
	return state, checkPrivileges(ctx, tx, table.deleted(), deleted, privileges, readOnly)
}

// remedy says how to create what is missing.
func (t tableName) remedy() string {
	return "run 'caddy mtls clients init-db --dsn <dsn> --table " + t.shown() + "', which keeps the clients"
}

// look finds the table and the triggers that it lacks.
func look(ctx context.Context, tx pgx.Tx, table tableName) (*tableState, error) {
	var version int
	var standby bool
	state := new(tableState)
	err := tx.QueryRow(ctx, `SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(), pg_backend_pid(), pg_postmaster_start_time()::text`).
		Scan(&version, &standby, &state.backend, &state.started)
	switch {
	case err != nil:
		return nil, err
	case version < minVersion:
		return nil, tableErrorf("the server is PostgreSQL %d; %d or newer is needed", version, minVersion)
	case standby:
		return nil, errors.New("the server is a standby, which has no notifications; connect to the primary, for example with target_session_attrs=primary in the DSN")
	}
	if state.oid, err = lookUp(ctx, tx, table); err != nil {
		return nil, err
	}
	err = tx.QueryRow(ctx, `SELECT coalesce(array_agg(name), '{}') FROM unnest($2::text[]) AS name
		WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND tgname = name AND tgenabled IN ('O', 'A'))`, state.oid, triggers).
		Scan(&state.missing)
	return state, err
}

// lookUp returns the OID of a table.
func lookUp(ctx context.Context, tx pgx.Tx, table tableName) (oid uint32, err error) {
	var kind string
	err = tx.QueryRow(ctx, `SELECT oid, relkind::text FROM pg_class WHERE oid = to_regclass($1)`, table.String()).Scan(&oid, &kind)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		base, _ := strings.CutSuffix(table.base(), "_deleted")
		main := append(tableName{}, table...)
		main[len(main)-1] = base
		return 0, tableErrorf("table %s does not exist, or is in a schema that the search_path of the role does not have; %s", table.shown(), main.remedy())
	case err == nil && kind != "r":
		return 0, tableErrorf("%s is not an ordinary table; have a table of its own filled, with triggers for example", table.shown())
	}
	return oid, err
}

// checkColumns checks that a table has columns of these types.
func checkColumns(ctx context.Context, tx pgx.Tx, table tableName, oid uint32, types map[string]string) error {
	rows, err := tx.Query(ctx, `SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped`, oid)
	if err != nil {
		return err
	}
	found := make(map[string]string)
	var name, has string
	if _, err := pgx.ForEachRow(rows, []any{&name, &has}, func() error {
		found[name] = has
		return nil
	}); err != nil {
		return err
	}
	for _, column := range []string{"client_id", "record", "changed", "deleted_at"} {
		switch want, has := types[column], found[column]; {
		case want == "" || want == has || want == "text" && has == "character varying":
		case has == "":
			return tableErrorf("table %s has no column %s; %s", table.shown(), column, table.remedy())
		case column == "changed":
			return tableErrorf("table %s: column changed is %s, not xid8; rename it, because it is needed for something else, and %s", table.shown(), has, table.remedy())
		default:
			return tableErrorf("table %s: column %s is %s, not %s; run ALTER TABLE %s ALTER COLUMN %s TYPE %s USING %s::%s",
				table.shown(), column, has, want, table.shown(), column, want, column, want)
		}
	}
	return nil
}

// checkKey checks that no client_id is NULL or there twice.
func checkKey(ctx context.Context, tx pgx.Tx, table tableName, oid uint32) error {
	var unique bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (
			SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL
				AND a.attname = 'client_id' AND a.attnotnull)`, oid).Scan(&unique)
	if err == nil && !unique {
		return tableErrorf("table %s: client_id is not the primary key; run ALTER TABLE %s ADD PRIMARY KEY (client_id)", table.shown(), table.shown())
	}
	return err
}

// checkPrivileges checks that the role has privileges on a table.
func checkPrivileges(ctx context.Context, tx pgx.Tx, table tableName, oid uint32, privileges []string, readOnly bool) error {
	var role string
	var missing []string
	err := tx.QueryRow(ctx, `SELECT current_user::text, coalesce(array_agg(p), '{}') FROM unnest($2::text[]) AS p WHERE NOT has_table_privilege($1::oid, p)`, oid, privileges).
		Scan(&role, &missing)
	if err != nil || len(missing) == 0 {
		return err
	}
	remedy := fmt.Sprintf("run GRANT %s ON %s TO %s", strings.Join(missing, ", "), table.shown(), pgx.Identifier{role}.Sanitize())
	if !readOnly && missing[0] != "SELECT" {
		remedy += ", or add read_only to the source"
	}
	return tableErrorf("role '%s' may not %s table %s; %s", role, strings.Join(missing, ", "), table.shown(), remedy)
}
