package check

import (
	"context"
	"errors"
	"io/fs"

	"github.com/caddyserver/certmagic"
)

// EmptyStorage is the storage of a configuration that is only checked. It has nothing, and
// stays so.
var EmptyStorage certmagic.Storage = emptyStorage{}

type emptyStorage struct{}

var errOnlyChecked = errors.New("the configuration is only checked")

func (emptyStorage) Lock(context.Context, string) error           { return errOnlyChecked }
func (emptyStorage) Unlock(context.Context, string) error         { return nil }
func (emptyStorage) Store(context.Context, string, []byte) error  { return errOnlyChecked }
func (emptyStorage) Delete(context.Context, string) error         { return errOnlyChecked }
func (emptyStorage) Exists(context.Context, string) bool          { return false }
func (emptyStorage) Load(context.Context, string) ([]byte, error) { return nil, fs.ErrNotExist }
func (emptyStorage) List(context.Context, string, bool) ([]string, error) {
	return nil, fs.ErrNotExist
}

func (emptyStorage) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{}, fs.ErrNotExist
}
