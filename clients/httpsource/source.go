// Package httpsource reads clients from a document behind an https URL.
package httpsource

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	defaultRefresh = time.Minute
	minRefresh     = time.Second
	defaultTimeout = 30 * time.Second
	minTimeout     = time.Second
	// maxAnswer bounds an answer that keeps coming.
	maxAnswer      = 5 * time.Minute
	defaultMaxSize = 1 << 30

	// firstRetry is the pause after a failure; it doubles with each further one, up to
	// maxRetry, or refresh if that is longer.
	firstRetry = 5 * time.Second
	maxRetry   = 5 * time.Minute
)

// Config configures a [Source].
type Config struct {
	// Address is the https URL of the document. Required.
	Address string
	// Refresh is how often the document is asked for. Default: a minute.
	Refresh time.Duration
	// Timeout is how long the server may send nothing. Default: 30 seconds. The whole
	// answer may take 5 minutes, or Timeout if that is longer.
	Timeout time.Duration
	// Header is sent to the host of the address, and to no other.
	Header http.Header
	// KeepCopy is the file of the last good copy, "" for none.
	KeepCopy string
	// MaxSize bounds the document, in bytes. Default: 1 GiB.
	MaxSize int64
	// SkipBad has records that are wrong skipped.
	SkipBad bool
	// Transport reaches the server. Default: that of [source.NewSecureFetcher].
	Transport http.RoundTripper
	// Logger gets what an operator should know. Default: none.
	Logger *zap.Logger
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
	// Jitter returns a number from 0 to 1. A request comes earlier by that many tenths
	// of the interval, so that servers do not all ask at once. Default: a random number.
	Jitter func() float64
}

// Source is a document behind an https URL, which is asked for again and again.
type Source struct {
	config  Config
	name    string
	fetcher *source.Fetcher

	// inForce is what the server said about the document that is in force
	inForce  validators
	due      time.Time
	failures int // in a row
	// pause is how long the server has asked to be left alone
	pause time.Duration
	// sum is that of the document that the copy has, and copyFailing is set while the
	// copy cannot be written
	sum         string
	copyFailing bool
}

// New returns the source of a document, which has not been fetched yet. It returns an
// error for an address that is not an https URL.
func New(config Config) (*Source, error) {
	if err := source.CheckSecureURL(config.Address); err != nil {
		return nil, err
	}
	config.Refresh = cmp.Or(config.Refresh, defaultRefresh)
	config.Timeout = cmp.Or(config.Timeout, defaultTimeout)
	config.MaxSize = cmp.Or(config.MaxSize, defaultMaxSize)
	config.Logger = cmp.Or(config.Logger, zap.NewNop())
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Jitter == nil {
		config.Jitter = rand.Float64
	}
	if config.Transport == nil {
		config.Transport = source.NewNetwork(nil)
	}
	s := &Source{config: config, name: "http:" + source.ShownURL(config.Address)}
	s.config.Logger = config.Logger.With(zap.String("place", s.name))
	transport, err := newOwnHost(config.Transport, config.Address, config.Header)
	if err != nil {
		return nil, err
	}
	s.fetcher = source.NewSecureFetcher(transport)
	return s, nil
}

// Info implements [clients.Source].
func (s *Source) Info() clients.SourceInfo {
	return clients.SourceInfo{Name: s.name, SkipBad: s.config.SkipBad, LoadTimeout: s.longest(), Refresh: s.config.Refresh, Copy: s.config.KeepCopy}
}

// longest is how long an answer may take.
func (s *Source) longest() time.Duration { return max(maxAnswer, s.config.Timeout) }

// Load implements [clients.Source].
func (s *Source) Load(ctx context.Context, sink clients.Sink) error {
	_, err := s.refresh(ctx, sink)
	return err
}

// Watch implements [clients.Source].
func (s *Source) Watch(ctx context.Context, sink clients.Sink) {
	source.Poll(ctx, source.LookInterval, func(ctx context.Context) error {
		// tests set the clock, and somebody may set it back
		if until := s.due.Sub(s.config.Now()); until > 0 && until <= s.longestPause() {
			return nil
		}
		if told, err := s.refresh(ctx, sink); !told && ctx.Err() == nil {
			sink.Note(err)
		}
		return nil
	}, nil)
}

func (s *Source) longestPause() time.Duration { return max(s.config.Refresh, maxRetry) }

// refresh asks for the document, and hands it over if it has changed. told is set if the
// sink knows the outcome.
func (s *Source) refresh(ctx context.Context, sink clients.Sink) (told bool, err error) {
	s.pause = 0
	told, err = s.fetch(ctx, sink)
	wait := s.config.Refresh
	if err != nil {
		wait = min(firstRetry<<min(s.failures, 16), s.longestPause())
		s.failures++
	} else {
		s.failures = 0
	}
	jitter := s.config.Jitter()
	wait -= time.Duration(jitter * float64(wait) / 10)
	if s.pause > wait {
		wait = min(s.pause+time.Duration(jitter*float64(s.pause)/10), s.longestPause())
	}
	s.due = s.config.Now().Add(wait)
	return told, err
}

// fetch is refresh without what follows. Whatever prevents the document from coming as a
// whole wraps [clients.ErrUnavailable]. What is wrong with a record is an error of the
// sink.
func (s *Source) fetch(ctx context.Context, sink clients.Sink) (told bool, err error) {
	within, cancel := context.WithTimeoutCause(ctx, s.longest(), fmt.Errorf("the server took longer than %s", s.longest()))
	defer cancel()
	within, stop := context.WithCancelCause(within)
	defer stop(nil)
	stalled := time.AfterFunc(s.config.Timeout, func() { stop(fmt.Errorf("the server has sent nothing for %s", s.config.Timeout)) })
	defer stalled.Stop()
	response, err := s.open(within)
	stalled.Stop()
	if err != nil {
		return false, fmt.Errorf("%w: %w", clients.ErrUnavailable, err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotModified {
		if s.sum != "" && !s.confirmCopy() {
			s.inForce = validators{} // the next answer is a document to copy
		}
		return false, nil
	}
	kept := s.newCopy()
	defer kept.discard()
	body := &body{ctx: within, response: response, limit: s.config.MaxSize, kept: kept, stalled: stalled, patience: s.config.Timeout}
	if err := sink.Replace(ctx, body.records); err != nil {
		if body.failure != nil {
			err = fmt.Errorf("%w: %w", clients.ErrUnavailable, err)
		}
		return true, err
	}
	s.inForce = validatorsOf(response)
	s.keep(kept)
	return true, nil
}

// Interface guards
var (
	_ clients.Source = (*Source)(nil)
	_ clients.Copier = (*Source)(nil)
)
