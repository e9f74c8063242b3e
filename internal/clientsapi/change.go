package clientsapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/mergepatch"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

// change is a request to change a client.
type change struct {
	realm  Realm
	action string
	id     string
	writer clients.Writer
	// before and after are what the client is changed from and to, nil for nothing.
	before, after *view
	// stored is set if the change may be stored although there was an error.
	stored bool
}

// Put creates a client, or replaces its record. To replace one, the request must have
// If-Match, so that nobody undoes what somebody else has changed in between.
func Put(w http.ResponseWriter, r *http.Request, realm Realm) error {
	c := &change{realm: realm, action: "put"}
	err := c.run(r, func(body []byte, current *view) ([]byte, error) {
		if err := checkPreconditions(r.Header, current.tag()); err != nil {
			return nil, err
		}
		if current != nil && r.Header.Get(ifMatch) == "" {
			return nil, apiError(http.StatusPreconditionRequired, "the client exists; to replace it, send the ETag that you have read in If-Match, or * to replace it whatever it is")
		}
		record, err := mergepatch.Canonical(body)
		if err != nil {
			return nil, err
		}
		return c.complete(record, current)
	})
	if err != nil {
		return err
	}
	if c.before != nil {
		return c.answer(w, http.StatusOK)
	}
	w.Header().Set("Location", "/mtls/realms/"+realm.Name+"/clients/"+escapeID(c.id))
	return c.answer(w, http.StatusCreated)
}

// Patch changes members of the record of a client (RFC 7396).
func Patch(w http.ResponseWriter, r *http.Request, realm Realm) error {
	c := &change{realm: realm, action: "patch"}
	err := c.run(r, func(body []byte, current *view) ([]byte, error) {
		if current == nil {
			return nil, unknownClient(realm, c.id, c.writer.Info().Name)
		}
		if err := checkPreconditions(r.Header, current.tag()); err != nil {
			return nil, err
		}
		if members, err := strictjson.Object(body, maxRecord); err != nil {
			return nil, apiError(http.StatusBadRequest, `the body is not a JSON Merge Patch such as {"disabled":true}: %w`, err)
		} else if renamed, ok := members["client_id"]; ok && !isString(renamed, c.id) {
			return nil, apiError(http.StatusUnprocessableEntity, "the client_id cannot be changed; create another client, and remove this one")
		}
		record, err := mergepatch.Apply(current.record, body, 2*maxRecord)
		if err != nil {
			return nil, apiError(http.StatusConflict, "the record of the client is broken in its source: %w; replace it with PUT", err)
		}
		return c.complete(record, current)
	})
	if err != nil {
		return err
	}
	return c.answer(w, http.StatusOK)
}

// answer answers with the record that is in force now.
func (c *change) answer(w http.ResponseWriter, status int) error {
	w.Header().Set("Mtls-Source", headerText(c.writer.Info().Name))
	w.Header().Set("Mtls-Writable", "true")
	return writeRecord(w, status, c.after)
}

// Delete removes a client, and answers with the record that it had.
func Delete(w http.ResponseWriter, r *http.Request, realm Realm) error {
	c := &change{realm: realm, action: "delete"}
	err := c.run(r, func(_ []byte, current *view) ([]byte, error) {
		if current == nil {
			return nil, unknownClient(realm, c.id, c.writer.Info().Name)
		}
		return nil, checkPreconditions(r.Header, current.tag())
	})
	if err != nil {
		return err
	}
	setJSON(w)
	writeLine(w, c.before.shown)
	return nil
}

// run makes the change that decide returns for the current record, nil if there is
// none, and writes the audit line.
func (c *change) run(r *http.Request, decide func(body []byte, current *view) ([]byte, error)) (err error) {
	defer func() { c.audit(r, err) }()
	c.id = r.PathValue("id") // for the audit line, also if it is wrong
	if _, err = clientID(r); err != nil {
		return err
	}
	body, err := readBody(r, c.action)
	if err != nil {
		return err
	}
	if err := c.findWriter(r); err != nil {
		return err
	}
	err = c.write(r.Context(), func(text []byte) (next []byte, err error) {
		defer source.Recover("checking the record", &err) // the source may run it in a goroutine
		c.before, c.after = nil, nil                      // of an attempt before
		var current *view
		if text != nil {
			current = newView(text)
		}
		if next, err = decide(body, current); err != nil {
			return nil, err
		}
		c.before = current
		if next != nil {
			c.after = newView(next)
		}
		return next, nil
	})
	var stored *clients.StoredError
	c.stored = errors.As(err, &stored)
	return c.describe(err)
}

// changeTimeout is longer than a source takes that bounds a change itself, as all of this
// module do.
const changeTimeout = time.Minute

// write has the source make the change, even if the caller hangs up: one that is
// interrupted may have been stored or not, and neither that nor what the source was doing
// has failed. The source may be a guest module. If it panics, it may have stored the record
// before.
func (c *change) write(ctx context.Context, decide func([]byte) ([]byte, error)) (err error) {
	returned := false
	defer func() {
		if !returned {
			err = &clients.StoredError{Err: fmt.Errorf("%w; the client may have been changed, so read it again", err)}
		}
	}()
	defer source.Recover(c.writer.Info().Name, &err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	err = c.writer.Change(ctx, c.id, decide)
	returned = true
	return err
}

// findWriter finds the source that the change is written to.
func (c *change) findWriter(r *http.Request) error {
	from, err := sourceParameter(r)
	if err != nil {
		return err
	}
	var ok bool
	if c.writer, ok = c.realm.Clients.Writer(); !ok {
		return apiError(http.StatusConflict, "realm '%s' has no source of clients that can be written to; add 'clients_from storage' to it", c.realm.Name)
	}
	name := c.writer.Info().Name
	if from != "" && from != name {
		return apiError(http.StatusConflict, "source '%s' cannot be written to here; changes are written to '%s'", from, name)
	}
	if client, known := c.realm.Clients.Client(c.id, ""); known && from == "" && client.Source != name {
		if _, waits := c.realm.Clients.Client(c.id, name); waits {
			return apiError(http.StatusConflict, "client '%s' in force is that of source '%s', which is not written to here; change it there, or add '?source=%s' for the one that waits", c.id, client.Source, url.QueryEscape(name))
		}
		return apiError(http.StatusConflict, "client '%s' is declared in source '%s', which is not written to here; change it there", c.id, client.Source)
	}
	return nil
}

// complete returns a record as it is stored, or why it must not be.
func (c *change) complete(record []byte, current *view) ([]byte, error) {
	members, err := strictjson.Object(record, 2*maxRecord)
	if err != nil {
		return nil, apiError(http.StatusBadRequest, "the record is not an object: %w", err)
	}
	if id, ok := members["client_id"]; !ok {
		if record, err = mergepatch.Apply(record, []byte(`{"client_id":"`+c.id+`"}`), 2*maxRecord); err != nil {
			return nil, err
		}
	} else if !isString(id, c.id) {
		return nil, apiError(http.StatusUnprocessableEntity, "the record has the client_id %.100s, but the path names '%s'; make them the same", id, c.id)
	}
	if _, private := jwks.Public(members[memberJWKS]); private && !bytes.Equal(members[memberJWKS], current.jwks()) {
		return nil, apiError(http.StatusUnprocessableEntity, "jwks contains PRIVATE key material, so anyone who can read it can impersonate the client; replace the key, and write only its public part")
	}
	if record, err = current.keepSecret(record); err != nil {
		return nil, err
	}
	if len(record) > maxRecord {
		return nil, apiError(http.StatusUnprocessableEntity, "the record has %d bytes; at most %d are allowed", len(record), maxRecord)
	}
	if err := c.realm.Clients.CheckRecord(c.writer.Info().Name, c.id, record); err != nil {
		status := http.StatusUnprocessableEntity
		if conflict := (*clients.ConflictError)(nil); errors.As(err, &conflict) {
			status = http.StatusConflict
		}
		return nil, apiError(status, "%w", err)
	}
	return record, nil
}

// escapeID returns a client_id for a path. A URL whose last segment is "." or ".."
// leads elsewhere.
func escapeID(id string) string {
	if strings.Trim(id, ".") == "" {
		return strings.ReplaceAll(id, ".", "%2E")
	}
	return url.PathEscape(id)
}

// isString reports whether a JSON value is that string.
func isString(value json.RawMessage, want string) bool {
	var text *string
	return json.Unmarshal(value, &text) == nil && text != nil && *text == want
}

// readBody reads the body of a change.
func readBody(r *http.Request, action string) ([]byte, error) {
	if action == "delete" {
		return nil, nil
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Type") == "", mediaType == "application/json", mediaType == "application/merge-patch+json" && action == "patch":
	case err != nil:
		return nil, apiError(http.StatusUnsupportedMediaType, "the Content-Type cannot be read: %w; use application/json", err)
	case action == "patch":
		return nil, apiError(http.StatusUnsupportedMediaType, "the Content-Type is %.100q; use application/merge-patch+json", mediaType)
	default:
		return nil, apiError(http.StatusUnsupportedMediaType, "the Content-Type is %.100q; use application/json", mediaType)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRecord+1))
	switch {
	case err != nil:
		return nil, apiError(http.StatusBadRequest, "reading the body: %w", err)
	case len(body) > maxRecord:
		return nil, apiError(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", maxRecord)
	}
	text := strictjson.NewReader(string(body))
	if _, err = text.Value(); err == nil {
		err = text.End()
	}
	if err != nil {
		return nil, apiError(http.StatusBadRequest, "the body is not a client record or a patch of one in JSON: %w", err)
	}
	return body, nil
}

// describe returns the error of [clients.Writer.Change] with its status.
func (c *change) describe(err error) error {
	switch {
	case err == nil || statusOf(err) != http.StatusInternalServerError:
		return err
	case errors.Is(err, clients.ErrBadRecord):
		return apiError(http.StatusBadRequest, "%w", err)
	}
	status := http.StatusInternalServerError
	if errors.Is(err, clients.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		status = http.StatusServiceUnavailable
	}
	if c.stored {
		return apiError(status, "%w", err)
	}
	return apiError(status, "the client has not been changed: %w", err)
}
