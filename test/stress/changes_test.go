package stress_test

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// otherClients is how many clients there are in the file that send no requests. Half
// of them are replaced at each change.
const otherClients = 200

// lateKeys is how long a new configuration may use keys that were retired while it was
// loaded, on a busy machine. Otherwise it reads them every 30 s.
const lateKeys = 20 * time.Second

// put replaces a file at once.
func (s *stress) put(name string, content []byte) error {
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// writeClients writes the file of clients. The pinned certificate is that of the
// client id, or of none.
func (s *stress) writeClients(id string) error {
	record := func(id, thumbprint string) map[string]any {
		return map[string]any{"client_id": id, "scope": "use", "x509_thumbprints": thumbprint}
	}
	var records []map[string]any
	for i := range otherClients {
		var sum [32]byte
		_, _ = rand.Read(sum[:])
		id := fmt.Sprintf("other-%d", i)
		if i%2 == 0 {
			id = fmt.Sprintf("other-%x", sum[:8])
		}
		records = append(records, record(id, hex.EncodeToString(sum[:])))
	}
	if id != "" {
		records = append(records, record(id, testpki.HashOf(s.leaves["pinned"].Cert.Raw)))
	}
	text, err := json.Marshal(records)
	if err != nil {
		return err
	}
	return s.put("clients.json", text)
}

// changePinned gives the pinned certificate to the next client, or to none.
func (s *stress) changePinned(n int) error {
	id := append([]string{""}, pinnedClients...)[n%3]
	s.oracle.pinned.begin(id)
	if err := s.writeClients(id); err != nil {
		return err
	}
	if err := s.inForce("pinned", func(st *state) { st.pinned = id }); err != nil {
		return err
	}
	s.oracle.pinned.end(id)
	return nil
}

// changeTrusted adds a CA to the trust pool, or removes it.
func (s *stress) changeTrusted(n int) error {
	trusted := n%2 == 1
	pool := s.CA.PEM()
	if trusted {
		pool = append(pool, s.OtherCA.PEM()...)
	}
	s.oracle.trusted.begin(trusted)
	if err := s.put("pool.pem", pool); err != nil {
		return err
	}
	if err := s.inForce("trusted", func(st *state) { st.trusted = trusted }); err != nil {
		return err
	}
	s.oracle.trusted.end(trusted)
	return nil
}

// changeRevoked replaces the CRL by one that lists the revocable certificate, or not.
func (s *stress) changeRevoked(n int) error {
	revoked := n%2 == 1
	s.oracle.revoked.begin(revoked)
	if err := s.put("crl.pem", s.crl(s.crls.Add(1), revoked)); err != nil {
		return err
	}
	if err := s.inForce("revocable", func(st *state) { st.revoked = revoked }); err != nil {
		return err
	}
	s.oracle.revoked.end(revoked)
	return nil
}

// changeKey replaces the signing key at once. If the configuration was being replaced
// meanwhile, the new one may have read the keys before the change, so changeKey waits
// until it refuses a token of the key before.
func (s *stress) changeKey(n int) error {
	c := s.Connect("h1", s.leaves["static"])
	defer func() { c.Close() }()
	var old answer
	if err := s.await("a token is issued", func() bool {
		got, err := tokenQuestion("static", "static").ask(c)
		old = got
		return err == nil && got.token.text != ""
	}); err != nil {
		return err
	}
	if n%2 == 1 { // the moment at which a change is lost most easily
		_ = s.await("the configuration is replaced", func() bool { return s.over() || s.reloadsBegun.Load() != s.reloadsEnded.Load() })
	}
	begun, ended := s.reloadsBegun.Load(), s.reloadsEnded.Load()
	s.oracle.key.begin(pending)
	var status int
	var text string
	var err error
	// the configuration before changes no keys any more, and says to send it again
	_ = s.await("the key is replaced", func() bool {
		status, text, err = s.admin(http.MethodPost, "/mtls/realms/default/keys/rotate", `{"retire":"now"}`)
		return err != nil || status != http.StatusServiceUnavailable
	})
	var ring struct{ Rotated string }
	if err != nil || status != http.StatusOK || json.Unmarshal([]byte(text), &ring) != nil || ring.Rotated == "" {
		return fmt.Errorf("%d %q %v", status, text, err)
	}
	if begun != ended || s.reloadsBegun.Load() != begun {
		s.count("change of the key during one of the configuration")
		replaced := time.Now() // the configuration
		if err := s.await("a token of the old key is refused", func() bool {
			begun, ended := s.reloadsBegun.Load(), s.reloadsEnded.Load()
			c.Close()
			c = s.Connect("h1", s.leaves["static"])
			got, err := bearerQuestion("static", old.token).ask(c)
			if err != nil || begun != ended || s.reloadsBegun.Load() != begun {
				replaced = time.Now()
				return false
			}
			if time.Since(replaced) > lateKeys {
				s.failed("the key is still in use %s after a change of the configuration", lateKeys)
			}
			return strings.HasPrefix(got.text, "401") || s.over()
		}); err != nil {
			return err
		}
	}
	s.oracle.key.end(ring.Rotated)
	return nil
}

const storedPath = "/mtls/realms/default/clients/stored"

// changeStored disables a client with the admin API, or enables it, which is in force at
// once. If the configuration was being replaced meanwhile, the new one may have read the
// clients before the change, so changeStored waits until it has them.
func (s *stress) changeStored(n int) error {
	stored := n%2 == 0
	begun, ended := s.reloadsBegun.Load(), s.reloadsEnded.Load()
	s.oracle.stored.begin(stored)
	var status int
	var text string
	var err error
	// the configuration before changes no clients any more
	_ = s.await("the change is made", func() bool {
		status, text, err = s.admin(http.MethodPatch, storedPath, fmt.Sprintf(`{"disabled":%t}`, !stored))
		return err != nil || status != http.StatusServiceUnavailable
	})
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("%d %q %v", status, text, err)
	}
	if begun != ended || s.reloadsBegun.Load() != begun {
		s.count("change of the stored client during one of the configuration")
		if err := s.inForce("stored", func(st *state) { st.stored = stored }); err != nil {
			return err
		}
	}
	s.oracle.stored.end(stored)
	return nil
}

// changeConfig replaces the configuration, until nothing but the new one answers new
// connections.
func (s *stress) changeConfig(int) error {
	config, err := s.Adapt(s.realm, sites)
	if err != nil {
		return err
	}
	generation := s.Generation()
	s.reloadsBegun.Add(1)
	s.oracle.config.begin(generation)
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	want := fmt.Sprintf("generation %d", generation)
	err = s.await("the new configuration answers alone", func() bool {
		for _, protocol := range rig.Protocols {
			c := s.Connect(protocol, nil)
			got, err := c.Try(http.MethodGet, "https://generation.test/")
			c.Close()
			if err != nil || got.Body != want {
				return false
			}
		}
		return caddy.ListenerUsage("tcp", "127.0.0.1:"+s.HTTPS) == 1
	})
	s.reloadsEnded.Add(1) // before any request from whose beginning only the new one is right
	s.oracle.config.end(generation)
	return err
}

// inForce waits until a certificate gets the answer that the changed state demands. If
// the configuration was being replaced meanwhile, the new one may have read the file
// before the change, so inForce asks again.
func (s *stress) inForce(leaf string, change func(*state)) error {
	c := s.Connect("h1", s.leaves[leaf])
	defer func() { c.Close() }()
	var said string
	err := s.await(leaf+" is answered as the change demands", func() bool {
		begun, ended := s.reloadsBegun.Load(), s.reloadsEnded.Load()
		c.Close()
		c = s.Connect("h1", s.leaves[leaf])
		from := time.Now()
		got, err := guardQuestion(leaf).ask(c)
		if err != nil || begun != ended || s.reloadsBegun.Load() != begun {
			return false
		}
		said = got.text
		config := s.oracle.config.during(from, time.Now())[0]
		st := state{config: config, trusted: true, stored: true}
		change(&st)
		return got.text == st.admitted(st.known(leaf))
	})
	if err != nil {
		return fmt.Errorf("%w; the answer is %q", err, said)
	}
	return nil
}

// series is one that the metrics always have.
const series = `caddy_mtls_authentications_total{realm="default",result="ok"}`

// read reads the metrics and the admin API. While Caddy loads a configuration, it
// serves metrics that are still incomplete.
func (s *stress) read(n int) error {
	paths := []string{"/metrics", "/mtls/realms/default/keys", "/mtls/realms/default/clients?limit=50", "/config/apps/mtls"}
	path := paths[n%len(paths)]
	ended := s.reloadsEnded.Load()
	status, text, err := s.admin(http.MethodGet, path, "")
	loading := s.reloadsBegun.Load() != ended
	if err == nil && (status != http.StatusOK || path == "/metrics" && !loading && !strings.Contains(text, series)) {
		err = fmt.Errorf("%s: %d, %d bytes: %.300q", path, status, len(text), text)
	}
	s.count("admin " + path)
	return err
}
