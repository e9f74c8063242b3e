package clients

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// ErrUnavailable is wrapped by the error of [Source.Load] if the source cannot be
// reached, as opposed to one that has something wrong. A new configuration then takes
// over the clients that the running one has from the source of the same name.
var ErrUnavailable = errors.New("source is unavailable")

// ErrBadRecord is wrapped by the error of [Writer.Change] if the source cannot store what
// the record says.
var ErrBadRecord = errors.New("invalid client record")

// StoredError is an error of [Writer.Change] after which the record has been stored, or may
// have been, although it is not in force. Its text says which.
type StoredError struct{ Err error }

// Error returns the text of the error.
func (e *StoredError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *StoredError) Unwrap() error { return e.Err }

// Source is a place that client records come from, besides the configuration: files, a
// database, a directory server. It hands over all of its records, and then what
// changes. Nothing of it is on the path of a request, so it may take its time.
type Source interface {
	// Info describes the source. It always returns the same.
	Info() SourceInfo
	// Load hands over all records with one call of [Sink.Replace], and returns its
	// error. It is called once, before everything else, and must return when ctx is
	// done.
	Load(ctx context.Context, sink Sink) error
	// Watch hands over changes until ctx is done. It is called once after a Load, in a
	// goroutine of its own, and also if that failed with [ErrUnavailable] and the
	// records of the running configuration were taken over.
	Watch(ctx context.Context, sink Sink)
}

// SourceInfo describes a source of clients.
type SourceInfo struct {
	// Name identifies the source in logs, metrics and errors, as in
	// "file:partners.jsonl". It must not contain a secret. Sources of one realm have
	// different names.
	Name string
	// SkipBad has a record that is wrong skipped and reported: what the source had
	// under its client_id stays in force. If all records of a Replace are wrong, it is
	// refused, because then they are something else. Default: the whole update is
	// refused.
	SkipBad bool
	// NamesFiles allows the records to name certificate files and JWKS files on this
	// machine. Default: such a record is wrong, because whoever can write it need not
	// be allowed to have files read.
	NamesFiles bool
	// LoadTimeout bounds Load. Default: 30 seconds.
	LoadTimeout time.Duration
	// Copy is the file of the copy that a [Copier] keeps. It is shown to operators.
	Copy string
	// Refresh is how old what the source has handed over gets at most while it is in
	// order, because it looks for changes that often. It does nothing but tell operators
	// of a source that is late. Default: nobody is told.
	Refresh time.Duration
}

// Entry is a client record as a source hands it over.
type Entry struct {
	// ID is the client_id under which the source keeps the record, or "" if only the
	// record says it. If both do, they must agree.
	ID string
	// Record is the JSON text of the record (see [Record]), nil if the client has been
	// removed, which is possible only with an ID. The sink keeps a copy.
	Record []byte
	// Place says where the record is, for errors, as in "line 17". It may be empty.
	Place string
	// Wrong says why the source has a record here but no text of it that could be
	// handed over. The record is then like one whose text is wrong.
	Wrong error
}

// Sink takes what a source hands over, and puts it in force. Its methods return when
// that is done. An error says why nothing of the update is in force; it has been logged
// and counted. The source hands the records over again, together with what has changed
// since then, when they have changed, and from time to time: what they did not go
// together with may have gone. A source calls its sink from one goroutine at a time.
//
// A record that claims the client_id or a credential of a client from a source of a
// higher rank is refused alone, without an error, and takes effect when that client no
// longer has it.
type Sink interface {
	// Replace takes all records of the source. Those that it had before and that are
	// not among them are removed. An error among them ends the update, and is
	// returned. A record whose text has not changed costs next to nothing.
	Replace(ctx context.Context, records iter.Seq2[Entry, error]) error
	// Update takes some records that have changed, or have been removed. It costs what
	// these records cost, however many clients there are.
	Update(ctx context.Context, records []Entry) error
	// Note notes that the source cannot be read, and why, or with nil that it has been
	// read and has not changed. It is logged once.
	Note(err error)
}

// Writer is a source whose records can be changed with the admin API.
type Writer interface {
	Source
	// Change changes one record where the source keeps it, without losing any other
	// change: it reads the record, calls decide with its text (nil if there is none),
	// stores what decide returns (nil removes it), and hands it to the sink. An error
	// of decide is returned as it is. After any error, nothing is stored, unless it is a
	// [StoredError]. It may call decide again if the record has changed in between. Change
	// may be called by several goroutines at once. It goes on if the caller of the admin API
	// hangs up.
	Change(ctx context.Context, id string, decide func(current []byte) (next []byte, err error)) error
}

// Copier is a source that can keep a copy of its records, for a start without it.
type Copier interface {
	Source
	// LoadCopy is like Load, but hands over the copy. It is called if Load has failed
	// with [ErrUnavailable] and no running configuration has the records. The error is
	// [errors.ErrUnsupported] if no copy is kept.
	LoadCopy(ctx context.Context, sink Sink) error
}

// SourceModule is a Caddy module in the namespace `mtls.clients`.
type SourceModule interface {
	// ClientSources returns the sources that clients are read from, the one with the
	// highest rank first. It is called once, after the module is provisioned.
	ClientSources(host Host) ([]Source, error)
}

// Host is what a realm provides for the sources of its clients.
type Host struct {
	// Realm is the name of the realm.
	Realm string
	// Running are the names of the sources that the running configuration has clients of.
	// If there is nothing where one of them has kept its clients, it has probably been
	// lost: [Source.Load] then fails with [ErrUnavailable].
	Running []string
	// Storage is the storage of the realm.
	Storage certmagic.Storage
	// Transport reaches servers as the `fetch` option of the realm says. It does not
	// decompress.
	Transport http.RoundTripper
	// Logger names the realm.
	Logger *zap.Logger
	// Now is the clock.
	Now func() time.Time
}
