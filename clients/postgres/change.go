package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/records"
)

const (
	// defaultChangeTimeout bounds a change, and then handing it over.
	defaultChangeTimeout = 10 * time.Second
	// reuseTimeout bounds the first answer of a connection that was used before, because
	// it may be dead.
	reuseTimeout = 2 * time.Second
	// maxAttempts is how often a change is tried while others create the same client.
	maxAttempts = 5
)

// errNotRunning is the error of a change before the source is loaded, and after it was
// watched.
var errNotRunning = fmt.Errorf("%w: the configuration of the source is not running; try again", clients.ErrUnavailable)

// Writer is a source whose clients can be changed.
type Writer struct {
	*Source
	// slot has the connection of the last change, or nil, while there is none being made.
	slot  chan *pgx.Conn
	ended bool // guarded by slot
}

func newWriter(s *Source) *Writer {
	w := &Writer{Source: s, slot: make(chan *pgx.Conn, 1)}
	w.slot <- nil
	return w
}

// Watch implements [clients.Source].
func (w *Writer) Watch(ctx context.Context, sink clients.Sink) {
	w.Source.Watch(ctx, sink)
	conn := <-w.slot
	if conn != nil {
		closeConn(conn)
	}
	w.ended = true
	w.slot <- nil
}

// Change implements [clients.Writer]. One change of the table follows another, at all
// Caddys, and is decided when what the others have changed is in force here. The row is
// locked from when it is read until it is stored, because others change it with SQL.
func (w *Writer) Change(ctx context.Context, id string, decide func([]byte) ([]byte, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.changeTimeout, fmt.Errorf("%w: the change takes longer than %s", clients.ErrUnavailable, w.changeTimeout))
	defer cancel()
	var conn *pgx.Conn
	select {
	case conn = <-w.slot:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var err error
	defer func() {
		if conn != nil && conn.IsClosed() {
			conn = nil
		}
		w.slot <- conn
	}()
	if w.ended {
		return errNotRunning
	}
	if err := w.ready(ctx); err != nil {
		return err
	}
	if conn, err = w.reuse(ctx, conn); err != nil {
		return availability(err)
	}
	if err := w.store(ctx, conn, id, decide); err != nil {
		return err
	}
	if err := w.putInForce(ctx, conn, id); err != nil {
		return &clients.StoredError{Err: fmt.Errorf("the change of client '%s' is stored, but not in force: %w", id, availability(err))}
	}
	return nil
}

// ready waits while all clients are being read, which may take long, so that a change
// does not wait for that when it holds the lock of the table.
func (w *Writer) ready(ctx context.Context) error {
	if err := w.take(ctx); err != nil {
		return err
	}
	defer w.release()
	if w.sink == nil {
		return errNotRunning
	}
	return nil
}

// reuse returns the connection if it works, or else another one.
func (w *Writer) reuse(ctx context.Context, conn *pgx.Conn) (*pgx.Conn, error) {
	if conn != nil {
		ctx, cancel := context.WithTimeout(ctx, reuseTimeout)
		defer cancel()
		if conn.Ping(ctx) == nil {
			return conn, nil
		}
		closeConn(conn)
	}
	return connect(ctx, w.dsn)
}

// putInForce hands over what is stored. Whoever asked for the change may have gone.
func (w *Writer) putInForce(ctx context.Context, conn *pgx.Conn, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.changeTimeout)
	defer cancel()
	if err := w.take(ctx); err != nil {
		return err
	}
	defer w.release()
	return w.readRows(ctx, conn, []string{id})
}

// store changes a row in a transaction.
func (w *Writer) store(ctx context.Context, conn *pgx.Conn, id string, decide func([]byte) ([]byte, error)) error {
	for attempt := 1; ; attempt++ {
		c := change{writer: w, id: id, decide: decide}
		err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error { return c.run(ctx, tx) })
		var fault *pgconn.PgError
		switch {
		case c.refused != nil:
			return c.refused
		case err == nil:
			return nil
		case !errors.As(err, &fault) && ctx.Err() != nil:
			return c.broken(context.Cause(ctx))
		case fault == nil || fault.Code[:2] == operatorIntervention:
			return c.broken(err)
		case fault.Code == uniqueViolation && attempt < maxAttempts: // somebody else has created it
		case fault.Code[:2] == "22" || fault.Code == checkViolation:
			detail := fault.Detail
			if fault.Code == checkViolation {
				detail = "" // it has the row, which may have a secret
			}
			return fmt.Errorf("%w: PostgreSQL does not store it: %s", clients.ErrBadRecord, strings.TrimSpace(fault.Message+" "+detail))
		default:
			return availability(fmt.Errorf("changing client '%s': %w", id, err))
		}
	}
}

const (
	uniqueViolation = "23505"
	checkViolation  = "23514"
	// operatorIntervention is the class of errors when the server is stopped, which may
	// happen after a commit that standbys have not confirmed.
	operatorIntervention = "57"
)

// change is a change of a row.
type change struct {
	writer     *Writer
	id         string
	decide     func([]byte) ([]byte, error)
	refused    error // why decide did not want it
	committing bool  // everything but the commit is done
}

// broken returns the error of a change that has ended before the server has said how.
func (c *change) broken(err error) error {
	if !c.committing {
		return availability(fmt.Errorf("changing client '%s': %w", c.id, err))
	}
	return &clients.StoredError{Err: availability(fmt.Errorf("it is not known whether the change of client '%s' is stored, because the connection broke; read it again: %w", c.id, err))}
}

func (c *change) run(ctx context.Context, tx pgx.Tx) error {
	// a node that stops here must not hold the lock for long
	if _, err := tx.Exec(ctx, "SELECT set_config('idle_in_transaction_session_timeout', $1, true), set_config('statement_timeout', $1, true)",
		fmt.Sprint(c.writer.changeTimeout.Milliseconds())); err != nil {
		return err
	}
	if err := c.writer.catchUp(ctx, tx); err != nil {
		return err
	}
	table := c.writer.table
	var current []byte
	err := tx.QueryRow(ctx, fmt.Sprintf("SELECT left(coalesce(record, 'null')::text, %d) FROM %s WHERE client_id = $1 FOR UPDATE", records.MaxBytes+1, table), c.id).Scan(&current)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		current = nil
	case err != nil:
		return err
	case len(current) > records.MaxBytes:
		c.refused = fmt.Errorf("the record of client '%s' has more than %d bytes; make it smaller in the database", c.id, records.MaxBytes)
		return c.refused
	}
	next, err := c.decide(current)
	if err != nil {
		c.refused = err
		return err
	}
	switch {
	case next == nil:
		_, err = tx.Exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE client_id = $1", table), c.id)
	case current == nil:
		_, err = tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s (client_id, record) VALUES ($1, $2::text::jsonb)", table), c.id, string(next))
	default:
		_, err = tx.Exec(ctx, fmt.Sprintf("UPDATE %s SET record = $2::text::jsonb WHERE client_id = $1", table), c.id, string(next))
	}
	c.committing = err == nil
	return err
}

// catchUp waits until no other change of the table is under way, at any Caddy, and hands
// over what has been changed elsewhere. If that is refused, or everything must be read,
// the change is decided without it, because a wrong record must not stop all changes.
func (w *Writer) catchUp(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('caddy mtls clients ' || to_regclass($1)::oid::text, 0))", w.table.String()); err != nil {
		return err
	}
	if err := w.take(ctx); err != nil {
		return err
	}
	defer w.release()
	if w.seen == "" {
		return nil
	}
	_, err := w.handOverUnseen(ctx, tx, w.server)
	if _, refused := errors.AsType[*refusal](err); refused || errors.Is(err, errReplaced) {
		return nil
	}
	return err
}
