package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestArchivesAreReproducible checks that the octets of an archive depend on nothing but
// names, content and time, and what programs that unpack it see.
func TestArchivesAreReproducible(t *testing.T) {
	at := time.Date(2026, 11, 29, 21, 35, 30, 0, time.UTC)
	content := map[string]file{
		"caddy": {[]byte("program"), 0o755}, "LICENSE": {[]byte("text"), 0o644},
		"licenses/" + strings.Repeat("long/", 50) + "LICENSE": {nil, 0o644},
	}
	want := []string{
		"name/LICENSE text -rw-r--r--", "name/caddy program -rwxr-xr-x",
		"name/licenses/" + strings.Repeat("long/", 50) + "LICENSE  -rw-r--r--",
	}
	for ending, list := range map[string]func([]byte, time.Time) ([]string, error){".tar.gz": listTar, ".zip": listZip} {
		first := archiveOf(t, "name"+ending, content, at)
		for zone, local := range map[string]*time.Location{"Tokyo": time.FixedZone("", 9*3600), "UTC": time.UTC} {
			if !bytes.Equal(archiveOf(t, "name"+ending, content, at.In(local)), first) {
				t.Errorf("%s differs in %s", ending, zone)
			}
		}
		if got, err := list(first, at); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v\n%q\n%q", ending, err, got, want)
		}
	}
	if err := writeArchive(filepath.Join(t.TempDir(), "name.rar"), content, at); err == nil {
		t.Error("an unknown kind of archive is written")
	}
}

func archiveOf(t *testing.T, name string, content map[string]file, at time.Time) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := writeArchive(path, content, at); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func listTar(text []byte, at time.Time) (list []string, err error) {
	compressed, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if compressed.Name != "" || !compressed.ModTime.IsZero() {
		return nil, errors.New("gzip has a name or a time")
	}
	archive := tar.NewReader(compressed)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if !header.ModTime.Equal(at) || header.Uid != 0 || header.Gid != 0 || header.Uname != "" || header.Gname != "" {
			return nil, fmt.Errorf("%+v", header)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		list = append(list, fmt.Sprintf("%s %s %s", header.Name, content, header.FileInfo().Mode()))
	}
}

func listZip(text []byte, at time.Time) (list []string, err error) {
	archive, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return nil, err
	}
	for _, entry := range archive.File {
		if !entry.Modified.Equal(at) {
			return nil, fmt.Errorf("%s is of %s", entry.Name, entry.Modified)
		}
		reader, err := entry.Open()
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return nil, err
		}
		list = append(list, fmt.Sprintf("%s %s %s", entry.Name, content, entry.Mode()))
	}
	return list, nil
}
