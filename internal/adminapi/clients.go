package adminapi

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
)

// withClients serves requests about the clients of a realm.
func (a api) withClients(serve func(http.ResponseWriter, *http.Request, clientsapi.Realm) error) caddy.AdminHandlerFunc {
	return a.withRealm(func(w http.ResponseWriter, r *http.Request, realm Realm) error {
		return serve(w, r, clientsapi.Realm{Name: realm.Name, Clients: realmClients{realm}, Logger: realm.Logger.Named("audit"), Changed: realm.Events.ClientChanged})
	})
}

// realmClients are the clients of a realm for the admin API.
type realmClients struct{ realm Realm }

func (c realmClients) Client(id, source string) (clientsapi.Client, bool) {
	client := c.realm.Directory.Registry().Client(id)
	if client != nil && (source == "" || client.Source() == source) {
		return adminClient(client), true
	}
	for waiting := range c.Waiting(id) {
		if waiting.ID != id {
			break
		}
		if source == "" || waiting.Source == source {
			return waiting, true
		}
	}
	return clientsapi.Client{}, false
}

func (c realmClients) From(id string) iter.Seq[clientsapi.Client] {
	return func(yield func(clientsapi.Client) bool) {
		for client := range c.realm.Directory.Registry().From(id) {
			if !yield(adminClient(client)) {
				return
			}
		}
	}
}

func (c realmClients) Waiting(id string) iter.Seq[clientsapi.Client] {
	return func(yield func(clientsapi.Client) bool) {
		for waiting := range c.realm.Directory.Waiting(id) {
			client := adminClient(waiting.Client)
			client.Waits = &clientsapi.Waits{Holder: waiting.Holder.ID, Reason: waiting.Reason.Error()}
			if !yield(client) {
				return
			}
		}
	}
}

func (c realmClients) Writer() (clients.Writer, bool) {
	writer, ok := c.realm.Directory.Writer()
	if !ok {
		return nil, false
	}
	return sharedWriter{writer, c.realm}, true
}

func (c realmClients) CheckRecord(source, id string, record []byte) error {
	return c.realm.Directory.CheckRecord(source, id, record)
}

func adminClient(client *clients.Client) clientsapi.Client {
	return clientsapi.Client{ID: client.ID, Source: client.Source(), Record: client.Record()}
}

// writers are the sources of all loaded configurations that can be written to.
var writers struct {
	sync.Mutex
	kept map[*keptWriter]struct{}
}

type keptWriter struct {
	clients.Writer
	realm string
	owner any
}

// KeepWriters adds those of a realm, before they are loaded, until its configuration ends.
// owner tells the realm from those of the same name in other configurations.
func KeepWriters(ctx context.Context, realm string, owner any, sources []clients.Source) {
	for _, from := range sources {
		writer, ok := from.(clients.Writer)
		if !ok {
			continue
		}
		kept := &keptWriter{writer, realm, owner}
		writers.Lock()
		if writers.kept == nil {
			writers.kept = make(map[*keptWriter]struct{})
		}
		writers.kept[kept] = struct{}{}
		writers.Unlock()
		context.AfterFunc(ctx, func() {
			writers.Lock()
			defer writers.Unlock()
			delete(writers.kept, kept)
		})
	}
}

// passOnTimeout is how long a change may take in a configuration that is being loaded.
const passOnTimeout = 10 * time.Second

// sharedWriter is the source of the running configuration. What is changed while
// another configuration is being loaded is also put in force there, because that one
// may have read the records before.
type sharedWriter struct {
	clients.Writer
	realm Realm
}

// Change implements [clients.Writer].
func (w sharedWriter) Change(ctx context.Context, id string, decide func([]byte) ([]byte, error)) error {
	failed := w.Writer.Change(ctx, id, decide)
	if stored := new(clients.StoredError); failed != nil && !errors.As(failed, &stored) {
		return failed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), passOnTimeout)
	defer cancel()
	for _, other := range w.others() {
		// a change of nothing reads the record again
		err := other.Change(ctx, id, func(current []byte) ([]byte, error) { return current, nil })
		if err != nil {
			w.realm.Logger.Warn("changed client may not be in force in the configuration that is being loaded", zap.String("client_id", id), zap.Error(err))
		}
	}
	return failed
}

// others returns the same source in other configurations.
func (w sharedWriter) others() (list []clients.Writer) {
	writers.Lock()
	defer writers.Unlock()
	for other := range writers.kept {
		if other.owner != w.realm.Owner && other.realm == w.realm.Name && other.Info().Name == w.Info().Name {
			list = append(list, other)
		}
	}
	return list
}
