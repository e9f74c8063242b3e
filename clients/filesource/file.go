package filesource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/records"
)

// format is how records are written in a file.
type format struct {
	read func(io.Reader) iter.Seq2[clients.Entry, error]
	// endless is set if the start of a file may be a file too, so that one that is
	// being written may look as if it were complete.
	endless bool
}

var (
	array = format{read: records.JSON}
	lines = format{read: someLines, endless: true}
	yamls = format{read: yamlRecords, endless: true}
	// formats are the formats by the ending of the file's name.
	formats = map[string]format{".json": array, ".jsonl": lines, ".ndjson": lines, ".yaml": yamls, ".yml": yamls}
)

// formatOf returns the format of a file, and whether its name tells it. Other files are
// JSON arrays.
func formatOf(name string) (f format, known bool) {
	f, known = formats[strings.ToLower(filepath.Ext(name))]
	if !known {
		f = array
	}
	return f, known
}

var (
	errNotRegular = errors.New("it is not a regular file")
	errChanged    = errors.New("it was changed while it was read; reading it again")
	errNoRecord   = errors.New("it has no record; write [] into a file if there are no clients")
)

// someLines returns the records of JSON Lines, which must have some: a file that was just
// created or emptied is no list without clients.
func someLines(r io.Reader) iter.Seq2[clients.Entry, error] {
	return func(yield func(clients.Entry, error) bool) {
		count := 0
		for e, err := range records.Lines(r) {
			if !yield(e, err) {
				return
			}
			count++
		}
		if count == 0 {
			yield(clients.Entry{}, errNoRecord)
		}
	}
}

// open opens a file without waiting for anything, such as the writer of a pipe.
func open(path string) (*os.File, os.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// readFile returns the records of a file. It adds the content to the sum.
func readFile(ctx context.Context, path string, sum hash.Hash64) iter.Seq2[clients.Entry, error] {
	return func(yield func(clients.Entry, error) bool) {
		file, before, err := open(path)
		if err != nil {
			yield(clients.Entry{}, err)
			return
		}
		defer file.Close()
		format, _ := formatOf(path)
		text := io.TeeReader(readerFunc(func(p []byte) (int, error) {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			return file.Read(p)
		}), sum)
		for e, err := range format.read(text) {
			if !yield(e, err) || err != nil {
				return
			}
		}
		after, err := file.Stat()
		if err == nil && !sameFile(before, after) {
			err = errChanged
		}
		if err != nil {
			yield(clients.Entry{}, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// sumFile adds the content of a file to the sum.
func sumFile(path string, sum hash.Hash64) error {
	file, _, err := open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(sum, file)
	return err
}

// looksComplete reports whether the last text of a file is how a complete one ends.
func looksComplete(path string) bool {
	file, info, err := open(path)
	if err != nil {
		return true // reading it says why
	}
	defer file.Close()
	end := make([]byte, 256)
	n, _ := file.ReadAt(end, max(0, info.Size()-int64(len(end))))
	end = end[:n]
	if f, _ := formatOf(path); f.endless {
		return bytes.HasSuffix(end, []byte("\n"))
	}
	return bytes.HasSuffix(bytes.TrimRight(end, " \t\r\n"), []byte("]"))
}

// sameFile reports whether a file is as it was.
func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// member is a file that clients are read from. Lists of them are sorted by name.
type member struct {
	name string // "" for the one file of a source that is not a folder
	info os.FileInfo
}

// sameMembers reports whether files are as they were.
func sameMembers(a, b []member) bool {
	return slices.EqualFunc(a, b, func(a, b member) bool { return a.name == b.name && sameFile(a.info, b.info) })
}

// find returns the file of that name.
func find(members []member, name string) (member, bool) {
	at, found := slices.BinarySearchFunc(members, name, func(m member, name string) int { return strings.Compare(m.name, name) })
	if !found {
		return member{}, false
	}
	return members[at], true
}

// statFile returns a file, if it can be one of clients.
func statFile(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	return info, err
}
