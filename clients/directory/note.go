package directory

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// maxSkipped is how many skipped records of a source are remembered, so that they are
// reported once.
const maxSkipped = 10_000

// minManyClients is how many clients a source has had if their number is compared with
// that of its next records. Few clients may be gone for many reasons.
const minManyClients = 100

// skippedRecords are the records of a source that are skipped because they are wrong:
// what is wrong, by client_id, or by place if the record has none.
type skippedRecords struct {
	errors map[string]string
	more   int // that are only counted
}

func (s *skippedRecords) count() int { return len(s.errors) + s.more }

// note notes which records an update has skipped, and returns those that are new.
func (s *skippedRecords) note(u *update) (reported []*clients.RecordError) {
	before := s.errors
	if u.replace || before == nil {
		s.errors, s.more = make(map[string]string), 0
	}
	for _, record := range u.records {
		if record.client != nil && !u.replace {
			delete(s.errors, record.client.ID)
		}
	}
	for _, id := range u.removed {
		delete(s.errors, id)
	}
	for _, wrong := range u.bad {
		key := cmp.Or(wrong.ClientID, wrong.Place)
		if before[key] != wrong.Error() {
			reported = append(reported, wrong)
		}
		if _, known := s.errors[key]; !known && len(s.errors) == maxSkipped {
			s.more++
			continue
		}
		s.errors[key] = wrong.Error()
	}
	return reported
}

// note notes the outcome of an update, and reports what is new. The error that keeps a
// directory from being made is reported by its owner.
func (u *update) note(changed bool, err error) {
	d, s := u.directory, u.source
	if err != nil {
		s.noteFailure(err)
		return
	}
	d.mu.Lock()
	was := s.failure()
	leaves := !s.doubted && u.leaves(s.applying)
	if leaves {
		s.reading, s.doubted = nil, true
	} else {
		s.setInForce(d.config.Now())
	}
	skipped := s.skipped.note(u)
	size, before := s.size, s.before
	d.mu.Unlock()
	logger := s.logger()
	for i, wrong := range skipped {
		if i == maxWarnings {
			logger.Error("more client records skipped", zap.Int("records", len(skipped)-i))
			break
		}
		logger.Error("client record skipped; it is wrong", append(wrong.Fields(), zap.Error(wrong))...)
	}
	if u.replace && u.read == 0 && (changed || !d.loaded()) {
		logger.Warn("client source has no clients")
	}
	u.progress.end(u.read)
	if leaves || !d.loaded() || !changed && was == "" {
		return
	}
	fields := []zap.Field{zap.Int("clients", size)}
	if u.replace && changed {
		fields = append(fields, zap.Int("before", before))
		if before >= minManyClients && 2*size < before {
			logger.Warn("client source has far fewer clients than before", fields...)
		}
	}
	d.config.report(s.label(), s.name, nil, fields...)
}

// leaves reports whether an update is about other records than the one that a failure is
// about, so that it does not end the failure by itself. A source with a wrong record goes
// on, and a change of another client is handed over alone.
func (u *update) leaves(failure error) bool {
	wrong := new(clients.RecordError)
	if u.replace || !errors.As(failure, &wrong) {
		return false
	}
	return !slices.Contains(u.removed, wrong.ClientID) && !slices.ContainsFunc(u.records, func(r incoming) bool {
		return r.client != nil && r.client.ID == wrong.ClientID
	})
}

// noteFailure notes why an update cannot be put in force, and reports it once.
func (s *recordSource) noteFailure(err error) {
	d := s.directory
	if !d.loaded() {
		return
	}
	d.config.countFailure(s.name)
	d.mu.Lock()
	reported := s.applying != nil && s.applying.Error() == err.Error()
	s.reading, s.applying, s.doubted = nil, err, false
	d.mu.Unlock()
	if !reported {
		d.config.report(s.label(), s.name, err)
	}
}

// noteUnavailable notes that a source cannot be reached, and what is used instead.
func (s *recordSource) noteUnavailable(err error, instead string, from time.Time) {
	s.directory.config.countFailure(s.name)
	s.directory.mu.Lock() // a Load that ignores its context may still hand over
	defer s.directory.mu.Unlock()
	s.reading, s.success, s.copy, s.copyTime = err, time.Time{}, instead, from
}

// readTime returns when the source was last read, or from when what is used instead is.
func (s *recordSource) readTime() time.Time {
	s.directory.mu.Lock()
	defer s.directory.mu.Unlock()
	if s.success.IsZero() {
		return s.copyTime
	}
	return s.success
}
