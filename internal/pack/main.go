// Command pack makes the archive of a release for one target, for scripts/release. It
// reads the SBOM of the program from standard input and prints a complete one. The same
// input gives the same octets on every machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// files are what the archive has besides the binary and the licenses.
var files = []string{"LICENSE", "README.md", "Caddyfile.example"}

func main() {
	target := flag.String("target", "", "Target of the binary, as <os>/<arch>")
	binary := flag.String("binary", "", "Binary to pack")
	archive := flag.String("archive", "", "Archive to make, whose name ends in .tar.gz or .zip")
	seconds := flag.Int64("time", 0, "Time of everything in the archive, in seconds since 1970")
	flag.Parse()
	if err := pack(context.Background(), *target, *binary, *archive, time.Unix(*seconds, 0).UTC()); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(ctx context.Context, target, binary, archive string, at time.Time) error {
	modules, err := modulesOf(ctx, target)
	if err != nil {
		return err
	}
	bom, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if bom, err = completeBOM(bom, modules, at); err != nil {
		return fmt.Errorf("SBOM: %w", err)
	}
	if _, err := os.Stdout.Write(bom); err != nil {
		return err
	}
	content, err := contentOf(binary, modules)
	if err != nil {
		return err
	}
	return writeArchive(archive, content, at)
}

// contentOf returns the files of an archive by their names in it.
func contentOf(binary string, modules []*module) (map[string]file, error) {
	content := make(map[string]file)
	add := func(name, path string, mode fs.FileMode) error {
		text, err := os.ReadFile(path)
		content[name] = file{text, mode}
		return err
	}
	err := add(filepath.Base(binary), binary, 0o755)
	for _, name := range files {
		err = errors.Join(err, add(name, name, 0o644))
	}
	for _, m := range modules {
		for _, name := range m.texts {
			err = errors.Join(err, add("licenses/"+m.path+"/"+filepath.ToSlash(name), filepath.Join(m.dir, name), 0o644))
		}
	}
	return content, err
}
