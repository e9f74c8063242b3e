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

// errNoCopy says that what is in the database is not what is in force.
var errNoCopy = errors.New("the clients in the database are not in force")

// LoadCopy implements [clients.Copier].
func (s *Source) LoadCopy(ctx context.Context, sink clients.Sink) error {
	if s.config.KeepCopy == "" {
		return errors.ErrUnsupported
	}
	file, err := os.Open(s.config.KeepCopy)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep_copy: '%s' has not been written yet", s.config.KeepCopy)
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
				if !bytes.Equal(e.Record, s.copyTitle()) {
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
		return fmt.Errorf("keep_copy: '%s': %w; remove it, and wait for the database", s.config.KeepCopy, err)
	}
	s.logger.Error("database of clients unavailable; clients come from the copy",
		zap.String("copy", s.config.KeepCopy), zap.Duration("age", time.Since(info.ModTime())))
	return nil
}

// copyTitle returns the first line of the copy. Another table must not be taken for this
// one after its DSN was changed.
func (s *Source) copyTitle() []byte {
	title, _ := json.Marshal(map[string]string{"copy_of": s.info.Name})
	return title
}

// keepCopy writes the copy after changes, until ctx is done.
func (s *Source) keepCopy(ctx context.Context) {
	s.keeping.Store(true)
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		began := time.Now()
		count, err := s.saveCopy(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			s.logger.Error("writing the copy of clients failed", zap.String("copy", s.config.KeepCopy), zap.Error(err))
		case err == nil && failing:
			s.logger.Info("writing the copy of clients works again", zap.String("copy", s.config.KeepCopy))
		}
		if failing = err != nil; failing {
			s.noteChange()
		}
		pause := copyShare * time.Since(began)
		if failing || count > 0 { // a start with an empty copy refuses everybody
			pause = max(pause, s.copyEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// saveLastCopy writes what has changed since the copy was written. The process may end
// after that, and start again without the database.
func (s *Source) saveLastCopy() {
	if !s.keeping.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastCopyTimeout)
	defer cancel()
	select {
	case s.saving <- struct{}{}: // what is being written is complete now
		<-s.saving
	case <-ctx.Done():
		return
	}
	select {
	case <-s.changed:
	default:
		return
	}
	if _, err := s.saveCopy(ctx); err != nil {
		s.logger.Error("writing the copy of clients failed", zap.String("copy", s.config.KeepCopy), zap.Error(err))
	}
}

// saveCopy writes the copy, on a connection of its own so that nothing waits for it. It
// returns how many clients the copy has.
func (s *Source) saveCopy(ctx context.Context) (count int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.info.LoadTimeout)
	defer cancel()
	select {
	case s.saving <- struct{}{}:
		defer func() { <-s.saving }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	conn, err := connect(ctx, s.dsn)
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	file, err := source.NewReplacement(s.config.KeepCopy)
	if err != nil {
		return 0, err
	}
	defer file.Discard()
	if count, err = s.writeCopy(ctx, conn, file); err != nil {
		return 0, err
	}
	if err := s.checkInForce(ctx, conn); err != nil {
		return 0, err
	}
	return count, file.Commit()
}

// writeCopy writes a record in each line, and returns how many there are. Those that are
// wrong whatever they contain are left out.
func (s *Source) writeCopy(ctx context.Context, conn *pgx.Conn, file io.Writer) (count int, err error) {
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT record::text FROM %s WHERE record ->> 'client_id' = client_id AND octet_length(record::text) <= %d", s.table, records.MaxBytes))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	buffered := bufio.NewWriter(file)
	_, _ = buffered.Write(s.copyTitle())
	_ = buffered.WriteByte('\n')
	for ; rows.Next(); count++ {
		_, _ = buffered.Write(rows.RawValues()[0])
		_ = buffered.WriteByte('\n')
	}
	return count, errors.Join(rows.Err(), buffered.Flush())
}

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
