package mtlsauth

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// silentStorage cannot be listed.
type silentStorage struct{ certmagic.Storage }

func (silentStorage) List(context.Context, string, bool) ([]string, error) {
	return nil, errors.New("storage is down")
}

// TestCopiesAreSweptWithoutJWKS: the last client with a JWKS leaves nothing
// behind for ever, and who has none needs no storage for it.
func TestCopiesAreSweptWithoutJWKS(t *testing.T) {
	realm := provisionRealm(t, `{"clients":[{"client_id":"a","x509_thumbprints":"`+someSHA256+`"}]}`).Realms[defaultRealm]
	files := &certmagic.FileStorage{Path: t.TempDir()}
	realm.storage = files
	const object = "mtls/default/jwks/0123456789abcdef.json"
	if err := files.Store(t.Context(), object, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	store := realm.copyStore()
	sweep := func(left bool) {
		t.Helper()
		if err := realm.sweepCopies(t.Context(), store); err != nil || files.Exists(t.Context(), object) != left {
			t.Errorf("%v, left %v", err, !left)
		}
	}
	sweep(true)
	store.Now = func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }
	sweep(false)
	store.Storage = silentStorage{files}
	sweep(false)
}
