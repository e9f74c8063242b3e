package main

import (
	"archive/tar"
	"archive/zip"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is a file of an archive.
type file struct {
	text []byte
	mode fs.FileMode
}

// writeArchive writes the files, by their names, into a folder of the archive's name.
// Nothing but names, content and time gets into the archive: no owner, no order of a
// file system and no time zone.
func writeArchive(path string, content map[string]file, at time.Time) error {
	var write func(io.Writer, string, map[string]file, time.Time) error
	folder, isTar := strings.CutSuffix(filepath.Base(path), ".tar.gz")
	if isTar {
		write = writeTar
	} else if folder, write = strings.TrimSuffix(folder, ".zip"), writeZip; filepath.Ext(path) != ".zip" {
		return fmt.Errorf("%s is neither a .tar.gz nor a .zip", path)
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(out, folder, content, at), out.Close())
}

func writeTar(out io.Writer, folder string, content map[string]file, at time.Time) error {
	compressed, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		f := content[name]
		header := &tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + name, Size: int64(len(f.text)), Mode: int64(f.mode), ModTime: at}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(f.text); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

func writeZip(out io.Writer, folder string, content map[string]file, at time.Time) error {
	archive := zip.NewWriter(out)
	archive.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, flate.BestCompression)
	})
	for _, name := range slices.Sorted(maps.Keys(content)) {
		f := content[name]
		header := &zip.FileHeader{Name: folder + "/" + name, Method: zip.Deflate, Modified: at.UTC()}
		header.SetMode(f.mode)
		entry, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := entry.Write(f.text); err != nil {
			return err
		}
	}
	return archive.Close()
}
