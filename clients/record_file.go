package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxRecordsFile is the size of the largest file of client records, in bytes.
const maxRecordsFile = 64 << 20

// PolledSource is a place that client records come from, besides the configuration. It is
// used by one goroutine at a time.
type PolledSource interface {
	// Name identifies the source in logs and metrics, as in "file:partners.json".
	Name() string
	// Load returns all records of the source if they have changed since the last
	// call. It is called a few times a second, so it must cost next to nothing if
	// nothing has changed. Every call returns an error until the source is mended;
	// changed is set at the first if the source has new content that is broken. The
	// last good records stay in force.
	Load(now time.Time) (records []Record, changed bool, err error)
}

// FileSource is a watched JSON file that contains an array of client records.
type FileSource struct{ file parsedFile[[]Record] }

// NewFileSource returns the source of a file, which has not been read yet.
func NewFileSource(path string) *FileSource {
	return &FileSource{parsedFile[[]Record]{File: source.NewFile(path, maxRecordsFile), parse: parseRecords}}
}

// Name returns "file:" and the path.
func (s *FileSource) Name() string { return "file:" + s.file.Path() }

// Load implements [PolledSource]. It costs one system call if the file has not changed.
func (s *FileSource) Load(now time.Time) (records []Record, changed bool, err error) {
	return s.file.look(now)
}

// parseRecords parses a JSON array of client records as strictly as the
// configuration is parsed (see [Record]). The error names the record and its line.
func parseRecords(content []byte) ([]Record, error) {
	content = source.WithoutBOM(content)
	dec := json.NewDecoder(bytes.NewReader(content))
	first, err := dec.Token()
	if err != nil || first != json.Delim('[') {
		return nil, errors.New(`not a JSON array; write the records as [{"client_id": …}, …]`)
	}
	records := []Record{}
	for dec.More() {
		var record Record
		if err := dec.Decode(&record); err != nil {
			line := 1 + bytes.Count(content[:min(dec.InputOffset(), int64(len(content)))], []byte("\n"))
			return nil, fmt.Errorf("record %d, at or after line %d: %w", len(records)+1, line, err)
		}
		records = append(records, record)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("after record %d: %w; close the array with ]", len(records), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the array; write one array")
	}
	return records, nil
}

// Interface guard
var _ PolledSource = (*FileSource)(nil)
