package directory

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// SourceConfig is the name of the configuration as a source of clients.
	SourceConfig = "config"

	// maxWarnings is how many warnings are reported one by one.
	maxWarnings = 20
)

// SourceSize is how many clients a source has.
type SourceSize struct {
	// Source is [SourceConfig] or the name of a source.
	Source string
	// Clients are in force. Refused are records that are not: clients of a source with
	// a higher rank have what they claim, or they are wrong and skipped.
	Clients, Refused int
}

// SourceState is the state of something that clients are read from.
type SourceState struct {
	// Source is "clients:" and the name of a source, "certificate:" and a file, or
	// "jwks:" and a client_id.
	Source string
	// Success is when it was last read without an error, zero if never.
	Success time.Time
	// Failure is why it could not be used, "" if it could.
	Failure string
	// Refresh is how often it is read, zero if that is not known.
	Refresh time.Duration
	// Copy is what is in use as long as it has not been read: the name of a copy, or
	// [CopyRunning]. CopyTime is from when it is, zero if that is not known.
	Copy     string
	CopyTime time.Time
}

// The copies of [SourceState] that are not files.
const (
	CopyRunning = "previous configuration"
	CopyStorage = "storage"
)

// status is how a source or a document fares. It is guarded by mu of the
// directory, and of its documents.
type status struct {
	// success is when the content was last found to be in force
	success time.Time
	// reading is why it cannot be read, once that has been reported, and applying
	// why its content cannot be put in force
	reading, applying error
	// doubted is set if something else has been put in force since applying, so that
	// another success ends the failure
	doubted bool
	// health is that of looks at a file or source
	health source.Health
	// copy is what is in use instead, and copyTime from when it is
	copy     string
	copyTime time.Time
}

// setInForce notes that the content is in force.
func (s *status) setInForce(now time.Time) {
	s.success, s.reading, s.applying, s.doubted = now, nil, nil, false
	s.copy, s.copyTime = "", time.Time{}
}

// noteReading notes the outcome of a look or fetch that has brought nothing new,
// and returns whether it has ended a failure.
func (s *status) noteReading(now time.Time, err error) (mended bool) {
	mended = err == nil && (s.doubted || s.reading != nil && s.applying == nil)
	s.reading = err
	if mended {
		s.setInForce(now)
	}
	if err == nil && s.applying == nil {
		s.success = now
	}
	return mended
}

func (s *status) failure() string {
	if err := cmp.Or(s.reading, s.applying); err != nil {
		return err.Error()
	}
	return ""
}

// label is what a source is called in a [SourceState].
func (s *recordSource) label() string { return SourceLabel(s.name) }

// SourceLabel returns what the source of that name is called in a [SourceState].
func SourceLabel(name string) string { return "clients:" + strings.TrimPrefix(name, "file:") }

// logger returns the logger of what concerns the source.
func (s *recordSource) logger() *zap.Logger {
	return s.directory.config.Logger.With(zap.String("source", s.label()), zap.String("place", s.name))
}

// wrap adds the name of the source to an error.
func (s *recordSource) wrap(err error) error {
	if s.from == nil {
		return err
	}
	return fmt.Errorf("clients from %s: %w", s.name, err)
}

// label is what a document is called in a log line.
func (d *watchedDocument) label() string {
	if labels := d.labels(); len(labels) > 0 {
		return labels[0]
	}
	return string(d.kind)
}

// labels are what a document is called in a [SourceState], once for each client.
func (d *watchedDocument) labels() []string {
	if d.kind == clients.KindCertificate {
		return []string{"certificate:" + d.name}
	}
	labels := d.userIDs()
	for i, id := range labels {
		labels[i] = "jwks:" + id
	}
	return labels
}

// countFailure counts a failure of the source of that name.
func (c *Config) countFailure(name string) {
	if !c.Ended() {
		c.Failed(name)
	}
}

// report logs that a source is in force, with more fields, or why it cannot be.
func (c *Config) report(label, place string, err error, more ...zap.Field) {
	if err != nil && c.Ended() {
		return
	}
	c.Report(label, err)
	logger := c.Logger.With(zap.String("source", label), zap.String("place", place))
	if err == nil {
		logger.Info("client source in force", more...)
		return
	}
	if wrong := new(clients.RecordError); errors.As(err, &wrong) {
		logger = logger.With(wrong.Fields()...)
	}
	logger.Error("client source failed; keeping previous clients", zap.Error(err))
}

// warnAll logs warnings, the first few one by one.
func (c *Config) warnAll(warnings []string) {
	if more := len(warnings) - maxWarnings; more > 1 {
		warnings = append(warnings[:maxWarnings:maxWarnings], fmt.Sprintf("%d more warnings", more))
	}
	for _, warning := range warnings {
		c.Logger.Warn(warning)
	}
}
