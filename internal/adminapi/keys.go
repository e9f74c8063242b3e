package adminapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// maxBody bounds the body of a request to rotate keys, in bytes.
const maxBody = 4 << 10

// keyRing is the response to requests about keys.
type keyRing struct {
	// Rotated is the ID of the key that the request has created.
	Rotated string         `json:"rotated,omitempty"`
	Keys    []keyring.Info `json:"keys"`
	// LastRead is when the keys were last read from storage.
	LastRead time.Time `json:"last_read,omitzero"`
}

func showKeys(w http.ResponseWriter, _ *http.Request, realm Realm) error {
	return writeKeys(w, realm.Issuer.Keys, "")
}

func writeKeys(w http.ResponseWriter, keys *keyring.Source, rotated string) error {
	ring := keyRing{Rotated: rotated, Keys: keys.Infos(), LastRead: keys.LastRead().UTC()}
	if ring.Keys == nil {
		ring.Keys = []keyring.Info{} // an empty list, not null
	}
	return writeJSON(w, ring)
}

func rotateKeys(w http.ResponseWriter, r *http.Request, realm Realm) error {
	retire, err := parseRotate(r)
	if err != nil {
		return err
	}
	keys := realm.Issuer.Keys
	kid, err := keys.Rotate(r.Context(), retire)
	switch {
	case errors.Is(err, keyring.ErrFixedKeys):
		return apiError(http.StatusConflict, "realm '%s' signs with the file in signing_key, which is not rotated here; replace the file and reload the configuration", realm.Name)
	case errors.Is(err, keyring.ErrAnnounced):
		return apiError(http.StatusConflict, `%w; to replace all keys at once, send {"retire":"now"}, as 'caddy mtls keys rotate --retire now' does`, err)
	case err != nil && retire:
		return apiError(http.StatusServiceUnavailable, "some keys may not have been retired: %w; send the request again", err)
	case err != nil:
		return apiError(http.StatusServiceUnavailable, "no key was announced: %w", err)
	}
	realm.Logger.Warn("signing keys rotated by an operator",
		zap.String("kid", kid), zap.Bool("others_retired", retire))
	return writeKeys(w, keys, kid)
}

// parseRotate reads the body of a request to rotate: none, {} or
// {"retire":"now"}. Anything else is refused, because a misspelt word must not turn
// an emergency into an ordinary rotation.
func parseRotate(r *http.Request) (retire bool, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return false, apiError(http.StatusBadRequest, "reading the body: %w", err)
	}
	switch {
	case len(body) > maxBody:
		return false, apiError(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", maxBody)
	case len(bytes.TrimSpace(body)) == 0:
		return false, nil
	}
	members, err := strictjson.Object(body, maxBody)
	if err != nil {
		return false, apiError(http.StatusBadRequest, `the body is not an object such as {"retire":"now"}: %w`, err)
	}
	for name, value := range members {
		if name != "retire" {
			return false, apiError(http.StatusBadRequest, `unknown member %.100q; the only one is "retire"`, name)
		}
		if string(value) != `"now"` {
			return false, apiError(http.StatusBadRequest, `retire is %.100s; the only value is "now"`, value)
		}
		retire = true
	}
	return retire, nil
}
