package postgres

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	// defaultRefresh is how often a source looks for changes that it was not notified
	// of, and defaultLoadTimeout how long reading all clients may take.
	defaultRefresh     = 10 * time.Second
	defaultLoadTimeout = time.Minute
	// defaultFullEvery is how often everything is read again, in case something has
	// changed the table without its triggers.
	defaultFullEvery = time.Hour
	// defaultQueryTimeout bounds everything else that the database is asked.
	defaultQueryTimeout = 10 * time.Second
	// fullShare bounds how much of the time all clients are being read: a sixth.
	fullShare = 5
	// minBackOff and maxBackOff are how long a source waits before it connects again.
	minBackOff = 500 * time.Millisecond
	maxBackOff = 30 * time.Second
	// gatherFor is how long after the first notification more are waited for, and
	// maxGathered how many rows are read one by one.
	gatherFor   = 20 * time.Millisecond
	maxGathered = 1000
)

// Config configures a source.
type Config struct {
	DSN         string        // a URL, or pairs of key=value
	Table       string        // default: [DefaultTable]
	KeepCopy    string        // the path of a file; default: none
	ReadOnly    bool          // the admin API cannot change the clients
	SkipBad     bool          // see [clients.SourceInfo]
	Refresh     time.Duration // default: 10 seconds
	LoadTimeout time.Duration // default: a minute
}

// Source reads clients from a table, and follows its changes.
type Source struct {
	config Config
	dsn    *pgx.ConnConfig
	table  tableName
	info   clients.SourceInfo
	logger *zap.Logger
	warned sync.Once // of the pooler
	copy   copyFile
	// what only tests change
	fullEvery, queryTimeout, changeTimeout time.Duration

	// turn is held by whoever reads rows and hands them over, so that nothing older is
	// handed over last. It guards what follows.
	turn chan struct{}
	sink clients.Sink
	// seen is the snapshot whose rows have all been handed over, "" if everything must
	// be read, and server what it was taken from.
	seen   string
	server *tableState
	// behind is set if the sink has refused an update. What has changed since seen is
	// handed over together.
	behind   bool
	fullAt   time.Time // when everything was read
	nextFull time.Time // when everything may be read again
}

// New returns the source of a table, a [clients.Writer] unless it is read-only. It does
// not connect.
func New(config Config, logger *zap.Logger) (clients.Source, error) {
	table, err := parseTable(cmp.Or(config.Table, DefaultTable))
	if err != nil {
		return nil, err
	}
	dsn, err := parseDSN(config.DSN)
	if err != nil {
		return nil, err
	}
	config.Refresh = cmp.Or(config.Refresh, defaultRefresh)
	s := &Source{
		config: config, dsn: dsn, table: table,
		fullEvery: defaultFullEvery, queryTimeout: defaultQueryTimeout, changeTimeout: defaultChangeTimeout,
		info: clients.SourceInfo{
			Name: sourceName(dsn, table), SkipBad: config.SkipBad,
			LoadTimeout: cmp.Or(config.LoadTimeout, defaultLoadTimeout), Refresh: config.Refresh, Copy: config.KeepCopy,
		},
		turn: make(chan struct{}, 1),
	}
	s.logger = logger.With(zap.String("source", s.info.Name))
	s.copy = copyFile{
		dsn: dsn, table: table, info: s.info, every: defaultCopyEvery, logger: s.logger,
		changed: make(chan struct{}, 1), saving: make(chan struct{}, 1), checkInForce: s.checkInForce,
	}
	if host := unverifiedHost(dsn); host != "" {
		s.logger.Warn("connection to PostgreSQL is not verified", zap.String("host", host))
	}
	if config.ReadOnly {
		return s, nil
	}
	return newWriter(s), nil
}

// Info implements [clients.Source].
func (s *Source) Info() clients.SourceInfo { return s.info }

// Load implements [clients.Source].
func (s *Source) Load(ctx context.Context, sink clients.Sink) error {
	conn, err := connect(ctx, s.dsn)
	if err != nil {
		return availability(err)
	}
	defer closeConn(conn)
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	s.sink = sink
	return availability(s.readAll(ctx, conn, nil))
}

// LoadCopy implements [clients.Copier].
func (s *Source) LoadCopy(ctx context.Context, sink clients.Sink) error {
	return s.copy.load(ctx, sink)
}

// take waits for the turn, in which the caller may read and hand over.
func (s *Source) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Source) release() { <-s.turn }

// Watch implements [clients.Source].
func (s *Source) Watch(ctx context.Context, sink clients.Sink) {
	var copying sync.WaitGroup
	defer copying.Wait()
	if s.info.Copy != "" {
		copying.Go(func() { s.copy.keep(ctx) })
	}
	if s.take(ctx) != nil {
		return
	}
	s.sink = sink
	s.release()
	for delay := minBackOff; ; delay = min(2*delay, maxBackOff) {
		followed, err := s.follow(ctx)
		if ctx.Err() != nil || s.take(ctx) != nil {
			return // the last copy needs what has been seen
		}
		s.seen, s.nextFull = "", time.Time{} // the next connection may lead elsewhere
		if !followed {                       // else connecting again may be all that is needed
			sink.Note(err)
		}
		s.release()
		if followed {
			delay = minBackOff
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay)): //nolint:gosec // it only spreads the load
		}
	}
}

// errReplaced ends a connection that listens for changes of a table that is not there
// any more, because another one has its name.
var errReplaced = errors.New("the table was replaced")

// follow connects and hands over what changes until that fails. followed is set if it has
// worked until then.
func (s *Source) follow(ctx context.Context) (followed bool, err error) {
	conn, err := connect(ctx, s.dsn)
	if err != nil {
		return false, err
	}
	defer closeConn(conn)
	state, err := s.listen(ctx, conn)
	if err != nil {
		return false, err
	}
	for next := time.Now(); ; {
		var ids []string
		if wait := time.Until(next); wait > 0 {
			receive := func(wait time.Duration) (*pgconn.Notification, error) { return notification(ctx, conn, wait) }
			if ids, err = gather(receive, wait); err != nil {
				return followed, err
			}
		}
		if time.Now().After(next) {
			ids = nil
		}
		if len(ids) == 0 { // which is also how a dead connection is noticed
			next = time.Now().Add(s.config.Refresh/2 + rand.N(s.config.Refresh)/2) //nolint:gosec // it only spreads the load
		}
		again, err := s.handOver(ctx, conn, state, ids)
		if err != nil {
			return followed, err
		}
		if !again.IsZero() && again.Before(next) {
			next = again
		}
		followed = true
	}
}

// listen checks the table and asks for notifications of its changes.
func (s *Source) listen(ctx context.Context, conn *pgx.Conn) (state *tableState, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	err = pgx.BeginTxFunc(ctx, conn, snapshotTx, func(tx pgx.Tx) error {
		state, err = inspect(ctx, tx, s.table, s.config.ReadOnly)
		return err
	})
	if err != nil {
		return nil, err
	}
	if conn.PgConn().PID() != state.backend {
		s.warned.Do(func() { s.logger.Warn("PostgreSQL is behind a connection pooler; notifications may be lost") })
	}
	if err := state.checkTriggers(s.table); err != nil {
		s.logger.Error("PostgreSQL does not report every change of a client", zap.Error(err))
	}
	_, err = conn.Exec(ctx, "LISTEN "+pgx.Identifier{state.channel()}.Sanitize())
	return state, err
}

// gather waits for a notification and those that come soon after it, and returns the
// client_ids that they name, or nothing if none has come in time. However many come, and
// whenever, the first one does not wait for long.
func gather(next func(wait time.Duration) (*pgconn.Notification, error), wait time.Duration) (ids []string, err error) {
	var until time.Time
	for len(ids) <= maxGathered && wait > 0 {
		note, err := next(wait)
		if err != nil {
			return nil, err
		}
		if note == nil {
			break
		}
		if ids = append(ids, note.Payload); len(ids) == 1 {
			until = time.Now().Add(gatherFor)
		}
		wait = time.Until(until)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// notification returns the next notification, or nil if none has come in time.
func notification(ctx context.Context, conn *pgx.Conn, wait time.Duration) (*pgconn.Notification, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	next, err := conn.WaitForNotification(waiting)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil && !conn.IsClosed() {
		return nil, nil
	}
	return next, err
}

// handOver hands over the rows with these client_ids, or what else has changed. again is
// when the rest may be read, if that must wait.
func (s *Source) handOver(ctx context.Context, conn *pgx.Conn, listening *tableState, ids []string) (again time.Time, err error) {
	if err := s.take(ctx); err != nil {
		return again, err
	}
	defer s.release()
	full := false
	if s.seen == "" || s.behind || len(ids) == 0 || len(ids) > maxGathered || ids[0] == "" {
		full, err = s.pass(ctx, conn, listening)
	} else {
		err = s.readRows(ctx, conn, ids)
	}
	if _, refused := errors.AsType[*refusal](err); refused {
		return again, nil // it has been reported, and is tried again
	}
	if full {
		again = s.nextFull
	}
	return again, err
}
