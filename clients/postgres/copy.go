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
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		began := time.Now()
		err := s.saveCopy(ctx)
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
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(s.copyEvery, copyShare*time.Since(began))):
		}
	}
}

// saveCopy writes the copy, on a connection of its own so that nothing waits for it.
func (s *Source) saveCopy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.info.LoadTimeout)
	defer cancel()
	conn, err := connect(ctx, s.dsn)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	file, err := source.NewReplacement(s.config.KeepCopy)
	if err != nil {
		return err
	}
	defer file.Discard()
	if err := s.writeCopy(ctx, conn, file); err != nil {
		return err
	}
	if err := s.checkInForce(ctx, conn); err != nil {
		return err
	}
	return file.Commit()
}

// writeCopy writes a record in each line. Those that are wrong whatever they contain are
// left out.
func (s *Source) writeCopy(ctx context.Context, conn *pgx.Conn, file io.Writer) error {
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT record::text FROM %s WHERE record ->> 'client_id' = client_id AND octet_length(record::text) <= %d", s.table, records.MaxBytes))
	if err != nil {
		return err
	}
	defer rows.Close()
	buffered := bufio.NewWriter(file)
	_, _ = buffered.Write(s.copyTitle())
	_ = buffered.WriteByte('\n')
	for rows.Next() {
		_, _ = buffered.Write(rows.RawValues()[0])
		_ = buffered.WriteByte('\n')
	}
	return errors.Join(rows.Err(), buffered.Flush())
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
