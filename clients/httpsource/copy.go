package httpsource

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/records"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// titleBytes is how long the first line of a copy is, filled up with blanks, because it is
// written last.
const titleBytes = 1024

// title is the first line of a copy. The document follows as it was sent. The file's time
// is when the server last said that this is its document.
type title struct {
	CopyOf string `json:"copy_of"`
	SHA256 string `json:"sha256"`
}

// newCopy is a copy that is being written. A nil one is none.
type newCopy struct {
	file   *source.Replacement
	buffer *bufio.Writer
	sum    hash.Hash
	err    error // why it cannot be written
}

// newCopy begins a copy next to the one that there is. It has mode 0600.
func (s *Source) newCopy() *newCopy {
	if s.config.KeepCopy == "" {
		return nil
	}
	c := &newCopy{sum: sha256.New()}
	if c.file, c.err = source.NewReplacement(s.config.KeepCopy); c.err == nil {
		c.buffer = bufio.NewWriterSize(c.file, 64<<10)
		c.write(bytes.Repeat([]byte(" "), titleBytes))
		c.sum.Reset()
	}
	return c
}

// write adds a part of the document.
func (c *newCopy) write(p []byte) {
	if c != nil && c.err == nil {
		c.sum.Write(p)
		_, c.err = c.buffer.Write(p)
	}
}

// finish writes the title, and makes the file the copy.
func (c *newCopy) finish(t title) error {
	if c.err != nil {
		return c.err
	}
	text, err := json.Marshal(t)
	if err == nil && len(text) >= titleBytes {
		err = errors.New("the URL is too long")
	}
	if err == nil {
		err = c.buffer.Flush()
	}
	if err == nil {
		text = append(text, bytes.Repeat([]byte(" "), titleBytes-1-len(text))...)
		_, err = c.file.WriteAt(append(text, '\n'), 0)
	}
	if err == nil {
		err = c.file.Commit()
	}
	return err
}

// discard removes the file, unless it has become the copy.
func (c *newCopy) discard() {
	if c != nil && c.file != nil {
		c.file.Discard()
	}
}

// keep makes a new copy the copy, if it has another document. That it cannot is reported
// once, and changes nothing for the clients.
func (s *Source) keep(c *newCopy) {
	if c == nil {
		return
	}
	sum := hex.EncodeToString(c.sum.Sum(nil))
	if c.err == nil && sum == s.sum && s.confirmCopy() {
		return
	}
	err := c.finish(title{s.name, sum})
	switch {
	case err != nil && !s.copyFailing:
		s.config.Logger.Error("writing the copy of clients failed", zap.String("copy", s.config.KeepCopy), zap.Error(err))
	case err == nil && s.copyFailing:
		s.config.Logger.Info("writing the copy of clients works again", zap.String("copy", s.config.KeepCopy))
	}
	if s.copyFailing = err != nil; !s.copyFailing {
		s.sum = sum
		s.confirmCopy()
	}
}

// confirmCopy notes in the copy that it is what the server has now. It returns false if
// somebody has removed the copy.
func (s *Source) confirmCopy() bool {
	now := s.config.Now()
	return !errors.Is(os.Chtimes(s.config.KeepCopy, now, now), fs.ErrNotExist)
}

// LoadCopy implements [clients.Copier].
func (s *Source) LoadCopy(ctx context.Context, sink clients.Sink) error {
	if s.config.KeepCopy == "" {
		return errors.ErrUnsupported
	}
	file, err := os.Open(s.config.KeepCopy)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep_copy: '%s' has not been written yet", s.config.KeepCopy)
	}
	if err != nil {
		return fmt.Errorf("keep_copy: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	var about title
	if err == nil {
		about, err = s.readTitle(file)
	}
	if err == nil {
		err = sink.Replace(ctx, recordsOfCopy(file, about))
	}
	if err != nil {
		return fmt.Errorf("keep_copy: '%s': %w; remove it, and wait for the server", s.config.KeepCopy, err)
	}
	s.sum = about.SHA256
	s.config.Logger.Error("server of clients unavailable; clients come from the copy",
		zap.String("copy", s.config.KeepCopy), zap.Duration("age", s.config.Now().Sub(info.ModTime())))
	return nil
}

// readTitle reads the first line of the copy.
func (s *Source) readTitle(file io.Reader) (about title, err error) {
	line := make([]byte, titleBytes)
	if _, err := io.ReadFull(file, line); err != nil || json.Unmarshal(line, &about) != nil || about.CopyOf == "" {
		return about, errors.New("it is not a copy of clients")
	}
	if about.CopyOf != s.name {
		return about, fmt.Errorf("it is the copy of %q; name another file", about.CopyOf)
	}
	return about, nil
}

// recordsOfCopy returns the records of a copy, and an error if it is not as it was
// written.
func recordsOfCopy(file io.Reader, about title) func(func(clients.Entry, error) bool) {
	return func(yield func(clients.Entry, error) bool) {
		sum := sha256.New()
		text := io.TeeReader(file, sum)
		damaged := errors.New("it is damaged")
		for e, err := range records.Detect(text) {
			if err != nil {
				err = fmt.Errorf("%w: %w", damaged, err)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		if hex.EncodeToString(sum.Sum(nil)) != about.SHA256 {
			yield(clients.Entry{}, damaged)
		}
	}
}
