package source

import (
	"os"
	"syscall"
)

// changeTime is when the file or what is known of it was changed last, in Unix
// nanoseconds.
func changeTime(info os.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ctimespec.Nano()
	}
	return 0
}
