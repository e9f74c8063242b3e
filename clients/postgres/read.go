package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/records"
)

// snapshotTx are the options of a transaction all of whose queries see the same.
var snapshotTx = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// maxChanges is how many changed rows are handed over as an update. If there are more,
// everything is read, which takes no memory for the rows.
const maxChanges = 10_000

// refusal is an error of the sink, which has reported it.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// columns returns what is selected of a row. A larger record is cut, so that nobody can
// fill the memory with one.
func columns(row string) string {
	return fmt.Sprintf("%s.client_id, left(%s.record::text, %d)", row, row, records.MaxBytes+1)
}

// entry returns the entry of a row.
func entry(id string, record []byte) clients.Entry {
	e := clients.Entry{ID: id, Record: record}
	switch {
	case id == "":
		e.Wrong = errors.New("a row has an empty client_id; remove it")
	case record == nil:
		e.Wrong = errors.New("its record is NULL; remove the row or write a JSON object")
	case len(record) > records.MaxBytes:
		e.Wrong = fmt.Errorf("its record has more than %d bytes; make it smaller", records.MaxBytes)
	}
	return e
}

// readAll hands over all rows, one at a time in memory. It returns a [refusal] if the sink
// refuses them. listening is the table that the connection listens to, nil for a first
// look, which is strict.
func (s *Source) readAll(ctx context.Context, conn *pgx.Conn, listening *tableState) error {
	s.behind = true
	began := time.Now()
	defer func() { s.nextFull = time.Now().Add(fullShare * time.Since(began)) }()
	ctx, cancel := context.WithTimeoutCause(ctx, s.info.LoadTimeout, fmt.Errorf("reading all clients takes longer than %s; raise load_timeout", s.info.LoadTimeout))
	defer cancel()
	err := pgx.BeginTxFunc(ctx, conn, snapshotTx, func(tx pgx.Tx) error {
		state, err := inspect(ctx, tx, s.table, s.config.ReadOnly)
		switch {
		case err == nil && listening == nil:
			err = state.checkTriggers(s.table)
		case err == nil && !state.same(listening):
			err = errReplaced
		}
		if err != nil {
			return err
		}
		var seen string
		if err := tx.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&seen); err != nil {
			return err
		}
		if err := s.replace(ctx, tx); err != nil {
			return err
		}
		s.seen, s.server, s.behind, s.fullAt = seen, state, false, began
		return nil
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		s.copy.noteChange()
	}
	return err
}

func (s *Source) replace(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, "SELECT "+columns("t")+" FROM "+s.table.String()+" t")
	if err != nil {
		return err
	}
	defer rows.Close()
	err = s.sink.Replace(ctx, func(yield func(clients.Entry, error) bool) {
		for rows.Next() {
			values := rows.RawValues() // valid until the next row
			if !yield(entry(string(values[0]), values[1]), nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(clients.Entry{}, err)
		}
	})
	if failed := rows.Err(); failed != nil {
		return failed
	}
	if err != nil {
		return &refusal{err}
	}
	return nil
}

// pass looks for what has changed since the last time, and hands it over. listening is
// the table that the connection listens to. wait is set if everything must be read, but
// was read just now.
func (s *Source) pass(ctx context.Context, conn *pgx.Conn, listening *tableState) (wait bool, err error) {
	full := s.seen == "" || !listening.same(s.server)
	if !full {
		if full, err = s.handOverChanges(ctx, conn, listening); err != nil {
			return false, err
		}
		full = full || time.Since(s.fullAt) >= s.fullEvery
	}
	if !full {
		return false, nil
	}
	if time.Now().Before(s.nextFull) {
		return true, nil
	}
	if err := s.readAll(ctx, conn, listening); err != nil {
		return false, err
	}
	s.forgetDeleted(ctx, conn)
	return false, nil
}

// forgetDeleted removes the client_ids that were deleted long ago. Nobody needs them,
// because whoever has not looked for that long reads everything. Another node may be
// doing the same, so it does not matter if it fails.
func (s *Source) forgetDeleted(ctx context.Context, conn *pgx.Conn) {
	if s.config.ReadOnly {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	_, _ = conn.Exec(ctx, "DELETE FROM "+s.table.deleted().String()+" WHERE deleted_at < now() - interval '1 day'")
}

// handOverChanges hands over the rows that the last snapshot does not have. full is set if
// that is not possible.
func (s *Source) handOverChanges(ctx context.Context, conn *pgx.Conn, listening *tableState) (full bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.queryTimeout, fmt.Errorf("the database has not answered for %s", s.queryTimeout))
	defer cancel()
	err = pgx.BeginTxFunc(ctx, conn, snapshotTx, func(tx pgx.Tx) error {
		full, err = s.handOverUnseen(ctx, tx, listening)
		return err
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return full, err
}

// handOverUnseen is handOverChanges in a transaction. If each query of it sees what is
// committed by then, rows that change meanwhile are handed over, and again next time.
func (s *Source) handOverUnseen(ctx context.Context, tx pgx.Tx, listening *tableState) (full bool, err error) {
	now, err := look(ctx, tx, s.table)
	switch {
	case err != nil:
		return false, err
	case !now.same(listening):
		return false, errReplaced
	case !now.marks():
		return true, nil
	}
	var seen string
	if err := tx.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&seen); err != nil {
		return false, err
	}
	entries, err := s.changes(ctx, tx)
	if err != nil || entries == nil {
		return err == nil, err
	}
	if err := s.update(ctx, entries); err != nil {
		return false, err
	}
	s.seen, s.behind = seen, false
	return false, nil
}

// changes returns what has changed since the last snapshot, or nil if everything must be
// read. A transaction that the last snapshot does not see has either ended after it was
// taken, or has begun after that; in both cases pg_visible_in_snapshot says so. Rows that
// were restored from another server may have the number of a transaction that is yet to
// come here.
func (s *Source) changes(ctx context.Context, tx pgx.Tx) ([]clients.Entry, error) {
	const unseen = `%[1]s.changed >= pg_snapshot_xmin($1::pg_snapshot) AND NOT pg_visible_in_snapshot(%[1]s.changed, $1::pg_snapshot)
		AND %[1]s.changed < pg_snapshot_xmax(pg_current_snapshot())`
	rows, err := tx.Query(ctx, fmt.Sprintf(`(SELECT %s, false FROM %s t WHERE %s LIMIT %d)
		UNION ALL (SELECT DISTINCT d.client_id, NULL, true FROM %s d WHERE %s
			AND NOT EXISTS (SELECT FROM %s t WHERE t.client_id = d.client_id) LIMIT %[4]d)`,
		columns("t"), s.table, fmt.Sprintf(unseen, "t"), maxChanges+1, s.table.deleted(), fmt.Sprintf(unseen, "d"), s.table), s.seen)
	if err != nil {
		return nil, err
	}
	entries := []clients.Entry{}
	var id string
	var record []byte
	var deleted, truncated bool
	_, err = pgx.ForEachRow(rows, []any{&id, &record, &deleted}, func() error {
		switch {
		case !deleted:
			entries = append(entries, entry(id, record))
		case id == "":
			truncated = true
		default:
			entries = append(entries, clients.Entry{ID: id})
		}
		return nil
	})
	if err != nil || truncated || len(entries) > maxChanges {
		return nil, err
	}
	return entries, nil
}

// readRows hands over the rows with these client_ids, as they are now.
func (s *Source) readRows(ctx context.Context, conn *pgx.Conn, ids []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.queryTimeout, fmt.Errorf("the database has not answered for %s", s.queryTimeout))
	defer cancel()
	rows, err := conn.Query(ctx, "SELECT "+columns("t")+" FROM "+s.table.String()+" t WHERE client_id = ANY ($1)", ids)
	if err != nil {
		return err
	}
	entries := make([]clients.Entry, 0, len(ids))
	left := slices.Clone(ids)
	var id string
	var record []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &record}, func() error {
		entries = append(entries, entry(id, record))
		left = slices.DeleteFunc(left, func(other string) bool { return other == id })
		return nil
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	for _, id := range left {
		entries = append(entries, clients.Entry{ID: id})
	}
	return s.update(ctx, entries)
}

// update hands over changes. It returns a [refusal] if the sink refuses them.
func (s *Source) update(ctx context.Context, entries []clients.Entry) error {
	if len(entries) == 0 {
		s.sink.Note(nil)
		return nil
	}
	if err := s.sink.Update(ctx, entries); err != nil {
		s.behind = true
		return &refusal{err}
	}
	s.copy.noteChange()
	return nil
}

// errNoCopy says that what is in the database is not what is in force.
var errNoCopy = errors.New("the clients in the database are not in force")

// checkInForce hands over what has changed, so that all that was copied is in force.
func (s *Source) checkInForce(ctx context.Context, conn *pgx.Conn) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	if s.seen == "" {
		return errNoCopy
	}
	full, err := s.handOverChanges(ctx, conn, s.server)
	if err == nil && (full || s.behind) {
		err = errNoCopy
	}
	return err
}
