package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/storage"
)

// The events that [RevokedTokensConfig.Report] is called with.
const (
	EventRevokedUnreadable = "revocation_unreadable"  // the object's name is not one that this release writes
	EventRevokedNotRemoved = "revocation_not_removed" // an object that is no longer needed could not be deleted
)

// maxRemovals is how many objects one refresh deletes at most.
const maxRemovals = 1000

// revokedRecord is a revocation as the name of its object encodes it. The
// content of the object is for people and is never read: nothing in it can
// undo a revocation, and a node only has to list the folder.
type revokedRecord struct {
	client  digest
	expires int64 // Unix seconds
	token   digest
	// all revokes every token that the client was issued at or before until,
	// in Unix seconds, instead of one token.
	all   bool
	until int64
}

var revokedName = regexp.MustCompile(`^([0-9]{1,12})-([0-9a-f]{32})-(?:([0-9a-f]{32})|until-([0-9]{1,12}))\.json$`)

// name returns the object's name: <exp>-<client>-<token>.json, or
// <exp>-<client>-until-<iat>.json, where client and token are digests.
func (s revokedRecord) name() string {
	if s.all {
		return fmt.Sprintf("%d-%x-until-%d.json", s.expires, s.client, s.until)
	}
	return fmt.Sprintf("%d-%x-%x.json", s.expires, s.client, s.token)
}

// parseRevokedName decodes the name of an object.
func parseRevokedName(name string) (revokedRecord, error) {
	part := revokedName.FindStringSubmatch(name)
	if part == nil {
		return revokedRecord{}, errors.New("the object's name is not that of a revocation; remove it, unless a later release wrote it")
	}
	var s revokedRecord
	// neither can fail after the match
	s.expires, _ = strconv.ParseInt(part[1], 10, 64)
	_, _ = hex.Decode(s.client[:], []byte(part[2]))
	if s.all = part[3] == ""; s.all {
		s.until, _ = strconv.ParseInt(part[4], 10, 64)
	} else {
		_, _ = hex.Decode(s.token[:], []byte(part[3]))
	}
	if s.name() != name {
		return revokedRecord{}, errors.New("the object's name has a number with leading zeros; remove the object")
	}
	return s, nil
}

// digestOf identifies a client by issuer and client id, and a token by both and
// its id. The issuer is included so that records of another issuer in the same
// folder have no effect.
func digestOf(issuer string, ids ...string) digest {
	buffer := make([]byte, 0, 512) // on the stack
	buffer = append(buffer, issuer...)
	for _, id := range ids {
		buffer = append(append(buffer, 0), id...)
	}
	sum := sha256.Sum256(buffer)
	return digest(sum[:len(digest{})])
}

// encodeRevoked returns the content of an object, for operators.
func encodeRevoked(issuer string, rev *VerifiedToken, now time.Time) ([]byte, error) {
	return json.Marshal(struct {
		Issuer   string    `json:"issuer"`
		ClientID string    `json:"client_id"`
		TokenID  string    `json:"jti"`
		IssuedAt time.Time `json:"issued_at"`
		Expires  time.Time `json:"expires"`
		Revoked  time.Time `json:"revoked"`
	}{issuer, rev.ClientID, rev.ID, rev.IssuedAt.UTC(), rev.Expires.UTC(), now.UTC().Truncate(time.Second)})
}

// Load reads the list from storage and changes nothing there. It keeps what is
// in memory. It reports objects that are not revocations once and skips them;
// it then returns an error, because one of them may be a revocation, but the
// rest counts. Only one Load or Refresh may run at a time.
func (r *RevokedTokens) Load(ctx context.Context) error {
	_, err := r.load(ctx)
	return err
}

// Refresh does the same as [RevokedTokens.Load], and then deletes the objects
// of tokens that expired more than a day ago and those that a later object
// includes.
func (r *RevokedTokens) Refresh(ctx context.Context) error {
	removable, err := r.load(ctx)
	r.remove(ctx, removable)
	return err
}

// load reads the list and returns the names of the objects that are no longer
// needed.
func (r *RevokedTokens) load(ctx context.Context) (removable []string, err error) {
	defer source.Recover("storage", &err)
	names, listErr := storage.List(ctx, r.cfg.Storage, r.prefix())
	var records []revokedRecord
	strange := make(map[string]bool)
	for _, name := range names {
		if path.Ext(name) != ".json" {
			continue // a temporary file of a storage that is about to write
		}
		record, err := parseRevokedName(path.Base(name))
		if err == nil {
			records = append(records, record)
			continue
		}
		strange[name] = true
		if !r.strange[name] {
			r.cfg.Report(EventRevokedUnreadable, name, err)
		}
	}
	r.learn(records, listErr == nil)
	if listErr != nil {
		return nil, listErr
	}
	r.strange = strange
	if len(strange) > 0 {
		return nil, fmt.Errorf("'%s' in storage holds %d objects that are not revocations", r.prefix(), len(strange))
	}
	r.read.Store(r.cfg.Now().UnixNano())
	return r.removable(records), nil
}

// removable returns the objects of tokens that expired long ago, and the
// cutoffs of clients that have a later one.
func (r *RevokedTokens) removable(records []revokedRecord) []string {
	limit := r.cfg.Now().Add(-expiredKeep).Unix()
	latest := make(map[digest]revokedRecord)
	for _, record := range records {
		if best, ok := latest[record.client]; record.all && (!ok || record.until > best.until || record.until == best.until && record.expires > best.expires) {
			latest[record.client] = record
		}
	}
	var names []string
	for _, record := range records {
		best := latest[record.client]
		superseded := record.all && record != best && record.expires <= best.expires
		if record.expires < limit || superseded {
			names = append(names, r.path(record))
		}
	}
	return names
}

func (r *RevokedTokens) remove(ctx context.Context, names []string) {
	name, err := r.remaining(ctx, names[:min(len(names), maxRemovals)])
	if err != nil && (r.removing == nil || r.removing.Error() != err.Error()) {
		r.cfg.Report(EventRevokedNotRemoved, name, err)
	}
	r.removing = err
}

// remaining deletes objects and returns the one that could not be deleted.
func (r *RevokedTokens) remaining(ctx context.Context, names []string) (name string, err error) {
	defer source.Recover("storage", &err)
	for _, name = range names {
		if err = r.cfg.Storage.Delete(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return name, err
		}
	}
	return "", nil
}

func (r *RevokedTokens) prefix() string {
	return path.Join("mtls", certmagic.StorageKeys.Safe(r.cfg.Realm), "revocations")
}

func (r *RevokedTokens) path(record revokedRecord) string {
	return path.Join(r.prefix(), record.name())
}
