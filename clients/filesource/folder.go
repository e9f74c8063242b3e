package filesource

import (
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxForeign is how many files are named that are not files of clients.
const maxForeign = 10

// folder lists the names of files in a folder. It lists them again when the folder has
// changed.
type folder struct {
	seen    os.FileInfo
	since   time.Time
	settled bool
	names   []string
	// foreign are the files that have been reported
	foreign []string
}

// list returns the names of what may be files of clients, sorted.
func (f *folder) list(path string, info os.FileInfo, now time.Time, logger *zap.Logger) ([]string, error) {
	if f.seen == nil || !sameFile(f.seen, info) {
		f.seen, f.since, f.settled = info, now, false
	}
	if f.settled {
		return f.names, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		f.seen = nil
		return nil, err
	}
	f.settled = now.Sub(f.since) >= source.QuietTime
	f.names = nil
	var foreign []string
	for _, entry := range entries {
		_, known := formatOf(entry.Name())
		switch {
		case isHidden(entry.Name()), entry.IsDir():
		case known:
			f.names = append(f.names, entry.Name())
		default:
			foreign = append(foreign, source.Text(entry.Name(), 200))
		}
	}
	if len(foreign) > 0 && !slices.Equal(foreign, f.foreign) {
		logger.Warn("files in clients folder ignored", zap.String("place", "file:"+path),
			zap.Strings("files", foreign[:min(len(foreign), maxForeign)]), zap.Int("count", len(foreign)))
	}
	f.foreign = foreign
	return f.names, nil
}

// isHidden reports whether a file is hidden, or a copy that an editor keeps.
func isHidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasPrefix(name, "#")
}
