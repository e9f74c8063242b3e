package tokens

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

const (
	// maxRevokedPerClient is how many tokens of one client are listed
	// individually. Beyond it, revoking a token revokes every token that the
	// client was issued until then.
	maxRevokedPerClient = 1000
	// maxRevoked is the same for all clients of an issuer together.
	maxRevoked = 50_000
	// cutoffKeep is how long a client's cutoff is kept at least, so that it ends
	// no sooner than the tokens that were issued before it; see LongestToken.
	cutoffKeep = 30 * 24 * time.Hour
	// expiredKeep is how long a revocation is kept after its token has
	// expired, so that a node whose clock is hours ahead undoes none that is
	// needed.
	expiredKeep = 24 * time.Hour

	// revokeWait is how long a request waits for storage at most.
	revokeWait = 5 * time.Second
	// storeTimeout bounds the storage operation, whether or not the request
	// still waits.
	storeTimeout = 30 * time.Second
	// maxRevoking is how many revocations are written at the same time.
	maxRevoking = 16
)

// RevokedTokensConfig describes where the revoked tokens of an issuer are
// kept.
type RevokedTokensConfig struct {
	// Storage holds the revoked tokens, below mtls/<realm>/revocations/.
	// Required.
	Storage certmagic.Storage
	// Realm is the folder of the revoked tokens. Required.
	Realm string
	// Issuer is the issuer URL of the tokens. Required.
	Issuer string
	// LongestToken returns the longest lifetime that tokens are expected to have.
	// Default: 30 days, which is also the minimum.
	LongestToken func() time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Report is called with what a log should show: an event, the storage key
	// it is about, and the error. Default: nothing is reported.
	Report func(event, key string, err error)
}

// RevokedTokens is the list of an issuer's tokens that were revoked before
// they expired (RFC 7009). It is kept in a certmagic.Storage, one object for
// each revocation, so that every node that shares the storage learns of it
// with its next [RevokedTokens.Refresh] and none can undo what another did. It
// is also kept in memory, where a lookup takes no lock. An entry stays in
// memory until a day after the token has expired, whatever happens to storage.
//
// At most 1000 tokens of a client are listed. Beyond that, revoking a token
// revokes every token that the client was issued until then, with one object.
//
// It fails closed: until the list has been read, every token counts as
// revoked. A nil *RevokedTokens revokes nothing.
type RevokedTokens struct {
	cfg     RevokedTokensConfig
	current atomic.Pointer[revokedList]
	read    atomic.Int64  // when the list was last read without an error, in Unix nanoseconds
	writers chan struct{} // has room for as many as may write at the same time

	mu sync.Mutex // held while current is replaced

	// used by Load and Refresh only
	strange  map[string]bool // objects that have been reported
	removing error
}

// digest identifies a client or a token in the list: the first half of a
// SHA-256.
type digest [sha256.Size / 2]byte

// revokedList is the list at one moment. It is immutable.
type revokedList struct {
	known   bool // it has been read
	tokens  map[digest]revokedEntry
	cutoffs map[digest]cutoff
	counts  map[digest]int // tokens of a client
}

type revokedEntry struct {
	client  digest
	expires int64 // Unix seconds
}

// cutoff revokes every token that a client was issued at or before until.
type cutoff struct {
	until, expires int64 // Unix seconds
}

// NewRevokedTokens returns a list that has not been read yet. It takes over
// what before has in memory, if that is of the same realm and issuer; before
// may be nil. The error names the value that is wrong.
func NewRevokedTokens(cfg RevokedTokensConfig, before *RevokedTokens) (*RevokedTokens, error) {
	switch {
	case cfg.Storage == nil:
		return nil, errors.New("revoked tokens need a storage")
	case strings.Trim(certmagic.StorageKeys.Safe(cfg.Realm), ".") == "":
		return nil, fmt.Errorf("realm '%s' cannot name a folder in storage; use letters, digits and hyphens", cfg.Realm)
	case cfg.Issuer == "":
		return nil, errors.New("revoked tokens need an issuer")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Report == nil {
		cfg.Report = func(string, string, error) {}
	}
	if cfg.LongestToken == nil {
		cfg.LongestToken = func() time.Duration { return 0 }
	}
	r := &RevokedTokens{cfg: cfg, writers: make(chan struct{}, maxRevoking)}
	r.current.Store(new(revokedList))
	if before != nil && before.cfg.Realm == cfg.Realm && before.cfg.Issuer == cfg.Issuer {
		r.current.Store(before.current.Load())
		r.read.Store(before.read.Load())
	}
	return r, nil
}

// Revoked reports whether a token was revoked, by its `jti` or by a cutoff of
// its client. A token without an `iat`, which is the zero time, counts as
// issued long ago. It takes no lock and does no I/O.
func (r *RevokedTokens) Revoked(clientID, tokenID string, issuedAt time.Time) bool {
	if r == nil {
		return false
	}
	list := r.current.Load()
	return !list.known || list.revokes(r.cfg.Issuer, clientID, tokenID, issuedAt)
}

func (l *revokedList) revokes(issuer, clientID, tokenID string, issuedAt time.Time) bool {
	if len(l.tokens) > 0 {
		if _, revoked := l.tokens[digestOf(issuer, clientID, tokenID)]; revoked {
			return true
		}
	}
	if len(l.cutoffs) == 0 {
		return false
	}
	limit, ok := l.cutoffs[digestOf(issuer, clientID)]
	return ok && issuedAt.Unix() <= limit.until
}

// Known reports whether the list has been read, by this list or by the one
// that it took over from. Until then every token counts as revoked.
func (r *RevokedTokens) Known() bool { return r == nil || r.current.Load().known }

// LastRead returns when the list was last read from storage without an error,
// the zero time if never.
func (r *RevokedTokens) LastRead() time.Time {
	if nanos := r.read.Load(); nanos != 0 {
		return time.Unix(0, nanos)
	}
	return time.Time{}
}

// Count returns how many listed tokens have not expired.
func (r *RevokedTokens) Count() (count int) {
	now := r.cfg.Now().Unix()
	for _, token := range r.current.Load().tokens {
		if token.expires > now {
			count++
		}
	}
	return count
}

// Revoke revokes a token on every node. It returns when storage has it, after
// 5 s at most; an error means that the token may not be revoked. Revoking a
// token that is already revoked or has expired does nothing. It reads ID,
// ClientID, IssuedAt and Expires of the token.
func (r *RevokedTokens) Revoke(ctx context.Context, rev *VerifiedToken) error {
	if r.done(rev) {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, revokeWait)
	defer cancel()
	select {
	case r.writers <- struct{}{}:
	case <-waiting.Done():
		return fmt.Errorf("waiting for other revocations to be stored: %w", waiting.Err())
	}
	_, err := storage.Within(waiting, func(context.Context) (struct{}, error) {
		defer func() { <-r.writers }()
		// it goes on when the caller has left
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		return struct{}{}, r.writeRecord(ctx, rev)
	})
	return err
}

// done reports whether nothing is left to revoke.
func (r *RevokedTokens) done(rev *VerifiedToken) bool {
	return r.current.Load().lasts(r.cfg.Issuer, rev) || rev.Expires.Add(expiredKeep).Before(r.cfg.Now())
}

// lasts reports whether a token is revoked for as long as it lives. A cutoff may
// end earlier.
func (l *revokedList) lasts(issuer string, rev *VerifiedToken) bool {
	if _, revoked := l.tokens[digestOf(issuer, rev.ClientID, rev.ID)]; revoked {
		return true
	}
	limit, ok := l.cutoffs[digestOf(issuer, rev.ClientID)]
	return ok && rev.IssuedAt.Unix() <= limit.until && rev.Expires.Unix() <= limit.expires
}

// recordOf returns what is stored to revoke a token: that token, or a cutoff
// of its client.
func (l *revokedList) recordOf(cfg RevokedTokensConfig, rev *VerifiedToken) revokedRecord {
	client := digestOf(cfg.Issuer, rev.ClientID)
	record := revokedRecord{client: client, token: digestOf(cfg.Issuer, rev.ClientID, rev.ID), expires: rev.Expires.Unix()}
	before, full := l.cutoffs[client]
	if !full && l.counts[client] < maxRevokedPerClient && len(l.tokens) < maxRevoked {
		return record
	}
	return revokedRecord{
		client: client, all: true, until: max(0, rev.IssuedAt.Unix(), before.until),
		expires: max(record.expires, rev.IssuedAt.Add(max(cutoffKeep, cfg.LongestToken())).Unix(), before.expires),
	}
}

// writeRecord stores a revocation and then adds it to the list.
func (r *RevokedTokens) writeRecord(ctx context.Context, rev *VerifiedToken) error {
	if r.done(rev) { // while this one waited
		return nil
	}
	record := r.current.Load().recordOf(r.cfg, rev)
	name := r.path(record)
	body, err := encodeRevoked(r.cfg.Issuer, rev, r.cfg.Now())
	if err != nil {
		return fmt.Errorf("encoding the revocation: %w", err)
	}
	if err := r.cfg.Storage.Store(ctx, name, body); err != nil {
		return fmt.Errorf("writing '%s' to storage: %w", name, err)
	}
	r.learn([]revokedRecord{record}, false)
	return nil
}

// learn adds records to the list in memory and forgets expired ones. read
// reports whether the records are all that storage has.
func (r *RevokedTokens) learn(records []revokedRecord, read bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.current.Load()
	next := &revokedList{
		known: before.known || read, counts: make(map[digest]int),
		tokens: make(map[digest]revokedEntry, len(records)), cutoffs: make(map[digest]cutoff),
	}
	maps.Copy(next.tokens, before.tokens)
	maps.Copy(next.cutoffs, before.cutoffs)
	limit := r.cfg.Now().Add(-expiredKeep).Unix()
	for _, record := range records {
		if record.expires >= limit {
			next.add(record)
		}
	}
	next.forgetExpired(limit)
	r.current.Store(next)
}

func (l *revokedList) add(record revokedRecord) {
	if !record.all {
		l.tokens[record.token] = revokedEntry{client: record.client, expires: record.expires}
		return
	}
	known := l.cutoffs[record.client]
	l.cutoffs[record.client] = cutoff{until: max(known.until, record.until), expires: max(known.expires, record.expires)}
}

// forgetExpired removes entries that expired before limit, and counts the
// rest.
func (l *revokedList) forgetExpired(limit int64) {
	maps.DeleteFunc(l.tokens, func(_ digest, t revokedEntry) bool { return t.expires < limit })
	maps.DeleteFunc(l.cutoffs, func(_ digest, c cutoff) bool { return c.expires < limit })
	for _, token := range l.tokens {
		l.counts[token.client]++
	}
}
