// Command pack makes the archive and the SBOM of a release for one target, for
// scripts/release. The same input gives the same octets on every machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
	bom := flag.String("sbom", "", "SBOM of the binary by cyclonedx-gomod, which is completed")
	archive := flag.String("archive", "", "Archive to make, whose name ends in .tar.gz or .zip")
	seconds := flag.Int64("time", 0, "Time of everything in the archive, in seconds since 1970")
	flag.Parse()
	if err := pack(context.Background(), *target, *binary, *bom, *archive, time.Unix(*seconds, 0).UTC()); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(ctx context.Context, target, binary, bom, archive string, at time.Time) error {
	modules, err := modulesOf(ctx, target)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(bom)
	if err != nil {
		return err
	}
	if text, err = completeBOM(text, modules, at); err != nil {
		return fmt.Errorf("%s: %w", bom, err)
	}
	if err := os.WriteFile(bom, text, 0o600); err != nil {
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
