package storagesource

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// formatVersion is the version of the format of the index and the shards.
	formatVersion = 1
	// shardCount is how many shards there are. A change writes one shard and the
	// index; with a million clients, these have about 400 KB and 100 KB.
	shardCount = 1024
)

// index says which objects hold the records.
type index struct {
	Format int `json:"format"`
	// Revision counts the changes.
	Revision uint64 `json:"revision"`
	// Shards are the shards that have records, by their name.
	Shards map[string]shardEntry `json:"shards"`
}

// shardEntry is a shard in the index.
type shardEntry struct {
	Object  string `json:"object"`
	Records int    `json:"records"`
	Bytes   int    `json:"bytes"`
}

// shardOf returns the name of the shard that has the record of a client.
func shardOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("%03x", binary.BigEndian.Uint16(sum[:])%shardCount)
}

// objectName is the name of a shard's object: the shard, the revision of the index that
// named it first, and the first half of the SHA-256 hash of its text.
var objectName = regexp.MustCompile(`^([0-3][0-9a-f]{2})-([0-9]{1,20})-([0-9a-f]{32})\.jsonl$`)

func newObjectName(shard string, revision uint64, text []byte) string {
	return fmt.Sprintf("%s-%d-%s.jsonl", shard, revision, shardHash(text))
}

func shardHash(text []byte) string {
	sum := sha256.Sum256(text)
	return fmt.Sprintf("%x", sum[:sha256.Size/2])
}

// parseObjectName returns the shard and the revision in the name of an object.
func parseObjectName(name string) (shard string, revision uint64, ok bool) {
	parts := objectName.FindStringSubmatch(name)
	if parts == nil {
		return "", 0, false
	}
	revision, err := strconv.ParseUint(parts[2], 10, 64)
	return parts[1], revision, err == nil
}

// parseIndex parses an index strictly enough that nothing outside of its folder is
// read, and nothing is lost that a later release has added.
func parseIndex(text []byte) (*index, error) {
	var x index
	if err := json.Unmarshal(text, &x); err != nil {
		return nil, fmt.Errorf("it is not an index of clients (%w); restore it from a backup", err)
	}
	switch {
	case x.Format > formatVersion:
		return nil, fmt.Errorf("its format %d is that of a later release; update this Caddy", x.Format)
	case x.Format != formatVersion:
		return nil, fmt.Errorf("it is not an index of clients (format %d); restore it from a backup", x.Format)
	case x.Shards == nil:
		return nil, errors.New("it has no member shards; restore it from a backup")
	}
	for name, entry := range x.Shards {
		if shard, _, ok := parseObjectName(entry.Object); !ok || shard != name {
			return nil, fmt.Errorf("its shard %.20q has the object %.100q, which is not the name of one; restore it from a backup", name, entry.Object)
		}
	}
	return &x, nil
}

// encode returns the text of the index, one shard a line.
func (x *index) encode() []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, `{"format":%d,"revision":%d,"shards":{`, x.Format, x.Revision)
	separator := "\n"
	for _, name := range slices.Sorted(maps.Keys(x.Shards)) {
		entry := x.Shards[name]
		fmt.Fprintf(&text, `%s"%s":{"object":"%s","records":%d,"bytes":%d}`, separator, name, entry.Object, entry.Records, entry.Bytes)
		separator = ",\n"
	}
	text.WriteString("\n}}\n")
	return text.Bytes()
}

// with returns the index after a change of one shard. A shard without records is left
// out.
func (x *index) with(shard string, entry shardEntry) *index {
	next := &index{Format: formatVersion, Revision: x.Revision + 1, Shards: maps.Clone(x.Shards)}
	if entry.Records == 0 {
		delete(next.Shards, shard)
	} else {
		next.Shards[shard] = entry
	}
	return next
}

// superseded reports whether the index names another object of the same shard that is
// not older. Objects that are later than what the index names are kept: the index may
// come from a backup.
func (x *index) superseded(name string) bool {
	shard, revision, ok := parseObjectName(name)
	if !ok {
		return false
	}
	current, exists := x.Shards[shard]
	if !exists {
		return false
	}
	_, latest, _ := parseObjectName(current.Object)
	return name != current.Object && revision <= latest
}

// line is a record in a shard.
type line struct {
	id   string
	text []byte
}

// errDamaged is wrapped by the errors about objects that have been read but cannot be
// used, or are missing. Unlike storage that fails, they do not mend themselves.
var errDamaged = errors.New("stored clients are damaged")

// parseShard parses the text of an object.
func parseShard(name string, text []byte) ([]line, error) {
	shard, _, _ := parseObjectName(name)
	if !strings.HasSuffix(name, "-"+shardHash(text)+".jsonl") {
		return nil, fmt.Errorf("%w: '%s' has %d bytes whose hash is not that of its name; restore it from a backup", errDamaged, name, len(text))
	}
	lines := make([]line, 0, bytes.Count(text, []byte{'\n'}))
	for raw := range bytes.Lines(text) {
		raw = bytes.TrimSuffix(raw, []byte{'\n'})
		id, err := recordID(raw)
		if err == nil && shardOf(id) != shard {
			err = fmt.Errorf("client '%s' belongs to shard %s", id, shardOf(id))
		}
		if err == nil && len(lines) > 0 && lines[len(lines)-1].id >= id {
			err = fmt.Errorf("client '%s' is not in order", id)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: '%s' line %d: %w; restore it from a backup", errDamaged, name, len(lines)+1, err)
		}
		lines = append(lines, line{id, raw})
	}
	return lines, nil
}

// encodeShard returns the text of lines, which must be sorted.
func encodeShard(lines []line) []byte {
	size := 0
	for _, l := range lines {
		size += len(l.text) + 1
	}
	text := make([]byte, 0, size)
	for _, l := range lines {
		text = append(append(text, l.text...), '\n')
	}
	return text
}

func compareID(l line, id string) int { return strings.Compare(l.id, id) }
