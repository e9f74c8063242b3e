package storagetest_test

import (
	"os"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/filestorage" // the storage module

	"github.com/caddymtls/caddy-mtls-auth/storagetest"
)

func TestStorage(t *testing.T) {
	storagetest.Test(t, storagetest.Module(os.Getenv("STORAGE")))
}
