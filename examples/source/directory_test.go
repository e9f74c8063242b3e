package directory_test

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	directory "github.com/caddymtls/caddy-mtls-auth/examples/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// memory is a directory in memory.
type memory struct {
	mu       sync.Mutex
	machines map[string]directory.Machine
	away     bool
	changes  chan []directory.Change
}

// All implements [directory.Directory].
func (m *memory) All(context.Context) iter.Seq2[directory.Machine, error] {
	return func(yield func(directory.Machine, error) bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, machine := range m.machines {
			if !yield(machine, nil) {
				return
			}
		}
	}
}

// Changes implements [directory.Directory].
func (m *memory) Changes(ctx context.Context) ([]directory.Change, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case changes, open := <-m.changes:
		if !open {
			return nil, errors.New("the connection was closed")
		}
		return changes, nil
	}
}

// set changes a machine, and tells whoever waits for changes.
func (m *memory) set(machine directory.Machine) {
	m.mu.Lock()
	m.machines[machine.Name] = machine
	m.mu.Unlock()
	m.changes <- []directory.Change{{Name: machine.Name, Machine: &machine}}
}

// remove removes a machine.
func (m *memory) remove(name string) {
	m.mu.Lock()
	delete(m.machines, name)
	m.mu.Unlock()
	m.changes <- []directory.Change{{Name: name}}
}

// running is the directory that Open connects to.
var running atomic.Pointer[memory]

func init() {
	directory.Open = func(context.Context, string) (directory.Directory, error) {
		server := running.Load()
		server.mu.Lock()
		defer server.mu.Unlock()
		if server.away {
			return nil, errors.New("connection refused")
		}
		return server, nil
	}
}

// TestExample runs the example in Caddy: it loads machines, and takes over what changes.
func TestExample(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.Issue("sensor")
	server := &memory{machines: map[string]directory.Machine{}, changes: make(chan []directory.Change)}
	running.Store(server)
	server.machines["billing"] = directory.Machine{Name: "billing", DN: "CN=billing", Scopes: "api1"}
	config := `mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	clients_from directory ldap.example
}`
	r.Start(config, rig.OneSite)
	ofBilling, ofSensor := r.Caller(t, "h1", billing), r.Caller(t, "h1", sensor)
	ofBilling.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing")
	ofSensor.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)

	server.set(directory.Machine{Name: "sensor", DN: "CN=sensor"})
	ofSensor.Eventually(t, http.StatusOK).WantClient(t, "sensor")
	server.set(directory.Machine{Name: "billing", DN: "CN=billing", Retired: true})
	ofBilling.Eventually(t, http.StatusUnauthorized)
	server.remove("sensor")
	ofSensor.Eventually(t, http.StatusUnauthorized)
	server.set(directory.Machine{Name: "billing", DN: "CN=billing"})
	ofBilling.Eventually(t, http.StatusOK)

	// the directory goes away, and a reload keeps what it had
	server.mu.Lock()
	server.away = true
	server.mu.Unlock()
	close(server.changes)
	r.Reload(config+"\n# reloaded", rig.OneSite)
	r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing")
	r.Logs.WaitFor(t, 1, "the directory is away", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "client source unavailable; keeping clients of the running configuration" && entry.Str("place") == "directory:ldap.example"
	})
}

var _ directory.Directory = (*memory)(nil)
