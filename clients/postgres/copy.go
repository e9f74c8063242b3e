package postgres

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/records"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// defaultCopyEvery is how often the copy is written at most.
	defaultCopyEvery = time.Minute
	// copyShare bounds how much of the time that is being done: a twentieth.
	copyShare = 20
	// lastCopyTimeout is how long the end of a configuration waits for the copy.
	lastCopyTimeout = 5 * time.Second
)

// copyFile is the copy of a table in a file.
type copyFile struct {
	dsn     *pgx.ConnConfig
	table   tableName
	info    clients.SourceInfo // whose Copy is "" if no copy is kept
	every   time.Duration
	logger  *zap.Logger
	changed chan struct{} // has an element if what keeps the copy is to write it
	saving  chan struct{} // is full while the copy is written
	keeping atomic.Bool   // is set once the copy is kept
	// due is set if something has changed that the copy does not have. It is reset only
	// while saving is full.
	due atomic.Bool
	// checkInForce returns an error unless all that was copied is in force.
	checkInForce func(context.Context, *pgx.Conn) error
}

// load hands over the copy.
func (c *copyFile) load(ctx context.Context, sink clients.Sink) error {
	if c.info.Copy == "" {
		return errors.ErrUnsupported
	}
	file, err := os.Open(c.info.Copy)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep_copy: '%s' has not been written yet", c.info.Copy)
	}
	if err != nil {
		return fmt.Errorf("keep_copy: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("keep_copy: %w", err)
	}
	err = sink.Replace(ctx, func(yield func(clients.Entry, error) bool) {
		begun := false
		for e, err := range records.Lines(file) {
			if !begun && err == nil {
				begun = true
				if !bytes.Equal(e.Record, c.title()) {
					yield(e, errors.New("it is not a copy of this table"))
					return
				}
				continue
			}
			if !yield(e, err) {
				return
			}
		}
		if !begun {
			yield(clients.Entry{}, errors.New("it is empty"))
		}
	})
	if err != nil {
		return fmt.Errorf("keep_copy: '%s': %w; remove it, and wait for the database", c.info.Copy, err)
	}
	c.logger.Error("database of clients unavailable; clients come from the copy",
		zap.String("copy", c.info.Copy), zap.Duration("age", time.Since(info.ModTime())))
	return nil
}

// title returns the first line of the copy. Another table must not be taken for this
// one after its DSN was changed.
func (c *copyFile) title() []byte {
	title, _ := json.Marshal(map[string]string{"copy_of": c.info.Name})
	return title
}

// keep writes the copy after changes, until ctx is done.
func (c *copyFile) keep(ctx context.Context) {
	c.keeping.Store(true)
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		}
		began := time.Now()
		count, err := c.save(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			c.logger.Error("writing the copy of clients failed", zap.String("copy", c.info.Copy), zap.Error(err))
		case err == nil && failing:
			c.logger.Info("writing the copy of clients works again", zap.String("copy", c.info.Copy))
		}
		if failing = err != nil; failing {
			c.noteChange()
		}
		pause := copyShare * time.Since(began)
		if failing || count > 0 { // a start with an empty copy refuses everybody
			pause = max(pause, c.every)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// saveLast writes what has changed since the copy was written. The process may end
// after that, and start again without the database.
func (s *Source) saveLast() {
	c := &s.copy
	if !c.keeping.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastCopyTimeout)
	defer cancel()
	if s.take(ctx) == nil { // what was being handed over is noted now
		s.release()
	}
	select {
	case c.saving <- struct{}{}: // what was being written is complete now, or due
		<-c.saving
	case <-ctx.Done():
		return
	}
	if !c.due.Load() {
		return
	}
	if _, err := c.save(ctx); err != nil {
		c.logger.Error("writing the copy of clients failed", zap.String("copy", c.info.Copy), zap.Error(err))
	}
}

// save writes the copy, on a connection of its own so that nothing waits for it. It
// returns how many clients the copy has.
func (c *copyFile) save(ctx context.Context) (count int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.info.LoadTimeout)
	defer cancel()
	select {
	case c.saving <- struct{}{}:
		defer func() { <-c.saving }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	c.due.Store(false)
	defer func() {
		if err != nil {
			c.due.Store(true)
		}
	}()
	conn, err := connect(ctx, c.dsn)
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	file, err := source.NewReplacement(c.info.Copy)
	if err != nil {
		return 0, err
	}
	defer file.Discard()
	if count, err = c.write(ctx, conn, file); err != nil {
		return 0, err
	}
	if err := c.checkInForce(ctx, conn); err != nil {
		return 0, err
	}
	return count, file.Commit()
}

// write writes a record in each line, and returns how many there are. Those that are
// wrong whatever they contain are left out.
func (c *copyFile) write(ctx context.Context, conn *pgx.Conn, file io.Writer) (count int, err error) {
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT record::text FROM %s WHERE record ->> 'client_id' = client_id AND octet_length(record::text) <= %d", c.table, records.MaxBytes))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	buffered := bufio.NewWriter(file)
	_, _ = buffered.Write(c.title())
	_ = buffered.WriteByte('\n')
	for ; rows.Next(); count++ {
		_, _ = buffered.Write(rows.RawValues()[0])
		_ = buffered.WriteByte('\n')
	}
	return count, errors.Join(rows.Err(), buffered.Flush())
}

// noteChange has the copy written.
func (c *copyFile) noteChange() {
	c.due.Store(true)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
