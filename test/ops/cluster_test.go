package ops_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// processConfig is the configuration of one node of a cluster. A key is announced
// for eight seconds, and each node reads storage about five times in that period.
const processConfig = `{
	admin @ADMIN@
	persist_config off
	auto_https off
	skip_install_trust
	storage_check off
	storage_clean_interval off
	storage file_system "@DIR@/storage"
	grace_period 1s
	http_port @HTTP@
	https_port @HTTPS@
	mtls {
		client sensor-7 {
			certificate "@DIR@/sensor.pem"
		}
		issuer https://auth.test {
			announce_for 8s
		}
	}
}

https://auth.test:@HTTPS@ {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			mode request
		}
	}
	mtls_issuer
}

https://api.test:@HTTPS@ {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			mode request
		}
	}
	mtls_bearer
	respond "hello {http.mtls.client_id}"
}
`

// process is a node of a cluster.
type process struct{ *rig.Process }

// processes are Caddy processes that share one storage.
type processes struct {
	*rig.Rig
	nodes  []process
	tokens map[string]string // one token of each unretired key, by kid
	public map[string]string // every key ever published, by kid
}

// startProcesses builds Caddy and starts several processes of it.
func startProcesses(t *testing.T, count int) *processes {
	t.Helper()
	c := &processes{Rig: rig.New(t), tokens: make(map[string]string), public: make(map[string]string)}
	if err := os.Mkdir(filepath.Join(c.Dir, "stored"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.link("storage", "stored")
	sensor := c.SelfSigned("sensor")
	binary := filepath.Join(c.Dir, "caddy")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/caddymtls/caddy-mtls-auth/cmd/caddy").CombinedOutput(); err != nil {
		t.Fatalf("building Caddy: %v\n%s", err, out)
	}
	for n := range count {
		node := process{c.Process(t, fmt.Sprintf("node%d", n), binary, processConfig, sensor)}
		c.nodes = append(c.nodes, node)
		node.Run()
	}
	return c
}

// link makes a name lead to another, at once if it has led elsewhere: the nodes would make
// folders in the meantime.
func (c *processes) link(name, to string) {
	c.T.Helper()
	next := filepath.Join(c.Dir, "next")
	err := os.Symlink(to, next)
	if err == nil {
		err = os.Rename(next, filepath.Join(c.Dir, name))
	}
	if err != nil {
		c.T.Fatal(err)
	}
}

// keyring returns the keys that a node reports.
func (node process) keyring(t *testing.T) (ring signingKeys) {
	t.Helper()
	status, text, err := node.Ask(http.MethodGet, "/mtls/realms/default/keys", "")
	if err != nil || status != http.StatusOK || json.Unmarshal([]byte(text), &ring) != nil {
		t.Fatalf("%s returned %d %q, %v", node.Name, status, text, err)
	}
	return ring
}

// has returns the ids of the keys in the given state.
func (ring signingKeys) has(state string) (kids []string) {
	for _, key := range ring.Keys {
		if key.State == state {
			kids = append(kids, key.ID)
		}
	}
	return kids
}

// rotate makes a node create a key, and returns its id.
func (node process) rotate(t *testing.T, body string) string {
	t.Helper()
	status, text, err := node.Ask(http.MethodPost, "/mtls/realms/default/keys/rotate", body)
	var ring signingKeys
	if err != nil || status != http.StatusOK || json.Unmarshal([]byte(text), &ring) != nil || ring.Rotated == "" {
		t.Fatalf("%s returned %d %q, %v", node.Name, status, text, err)
	}
	return ring.Rotated
}

// check makes each node issue a token. Every node must then verify a token of every
// unretired key, both by its published JWKS and at its own API.
func (c *processes) check(t *testing.T, nodes ...process) {
	t.Helper()
	for _, node := range nodes {
		answer := node.Client.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("sensor-7")).WantStatus(t, http.StatusOK)
		token, _ := rig.JSON(t, answer.Body)["access_token"].(string)
		unverified, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
		if err != nil {
			t.Fatalf("%s issues %q: %v", node.Name, token, err)
		}
		c.tokens[unverified.Header["kid"].(string)] = token
	}
	for _, node := range nodes {
		keys := c.published(t, node)
		for kid, token := range c.tokens {
			_, err := jwt.Parse(token, func(*jwt.Token) (any, error) {
				found := keys.Key(kid)
				if len(found) != 1 {
					return nil, fmt.Errorf("%d keys have this kid", len(found))
				}
				return found[0].Key, nil
			}, jwt.WithValidMethods([]string{"ES256"}))
			if err != nil {
				t.Fatalf("%s does not verify a token of key %s: %v; it has %+v", node.Name, kid, err, node.keyring(t))
			}
			if got := node.Client.Get("https://api.test/", rig.Bearer(token)); got.Status != http.StatusOK || got.Body != "hello sensor-7" {
				t.Fatalf("%s answers a token of key %s with %d %q; it has %+v", node.Name, kid, got.Status, got.Body, node.keyring(t))
			}
		}
	}
}

// published returns the JWKS of a node, and checks that a kid always and everywhere
// belongs to the same key.
func (c *processes) published(t *testing.T, node process) (keys jose.JSONWebKeySet) {
	t.Helper()
	body := node.Client.Get("https://auth.test/.well-known/openid-configuration/jwks").WantStatus(t, http.StatusOK).Body
	if err := json.Unmarshal([]byte(body), &keys); err != nil {
		t.Fatal(err)
	}
	for n, key := range keys.Keys {
		text, err := key.MarshalJSON()
		if err != nil || !key.IsPublic() {
			t.Fatalf("%s publishes %s, %v", node.Name, text, err)
		}
		if other, known := c.public[key.KeyID]; known && other != string(text) {
			t.Fatalf("two keys have the kid %s: %s and %s", key.KeyID, other, text)
		}
		c.public[key.KeyID] = string(text)
		if slices.ContainsFunc(keys.Keys[:n], func(k jose.JSONWebKey) bool { return k.KeyID == key.KeyID }) {
			t.Fatalf("%s publishes %s twice", node.Name, key.KeyID)
		}
	}
	return keys
}

// until repeats check until holds is true of every node.
func (c *processes) until(t *testing.T, what string, holds func(process) bool, nodes ...process) {
	t.Helper()
	for deadline := time.Now().Add(rig.Patience); ; {
		c.check(t, nodes...)
		if !slices.ContainsFunc(nodes, func(node process) bool { return !holds(node) }) {
			return
		}
		if time.Now().After(deadline) {
			for _, node := range nodes {
				t.Logf("%s: %+v", node.Name, node.keyring(t))
			}
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// signs returns a condition: the node signs with the key.
func signs(t *testing.T, kid string) func(process) bool {
	return func(node process) bool { return slices.Equal(node.keyring(t).has("active"), []string{kid}) }
}

// revoke has one node revoke a token. All others must refuse it within a few reads
// of storage, and still refuse it after they have been killed.
func (c *processes) revoke(t *testing.T) {
	t.Helper()
	a, b := c.nodes[0], c.nodes[1]
	answer := a.Client.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("sensor-7")).WantStatus(t, http.StatusOK)
	token, _ := rig.JSON(t, answer.Body)["access_token"].(string)
	for _, node := range c.nodes { // every node caches the token
		node.Client.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
	}
	a.Client.Do(http.MethodPost, "https://auth.test/connect/revocation", rig.Query("sensor-7", token)).WantStatus(t, http.StatusOK)
	a.Client.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusUnauthorized)
	for _, node := range c.nodes {
		rig.Await(c.Rig, t, node.Name+" refuses the revoked token", func() bool {
			return node.Client.Get("https://api.test/", rig.Bearer(token)).Status == http.StatusUnauthorized
		})
	}
	b.Kill()
	b.Run()
	b.Client.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusUnauthorized)
	c.check(t, c.nodes...)
}

// TestClusterRotates checks that three Caddys on one storage refuse no token of an
// unretired key while they rotate keys, are killed and lose storage.
func TestClusterRotates(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Caddy and runs it for most of a minute")
	}
	c := startProcesses(t, 3)
	a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
	var first []string
	rig.Await(c.Rig, t, "there is a key", func() bool {
		first = a.keyring(t).has("active")
		return len(first) == 1
	})
	c.until(t, "all sign with one key", signs(t, first[0]), c.nodes...)

	// one plain rotation; during the next one, each node is killed
	second := a.rotate(t, "")
	if status, text, err := b.Ask(http.MethodPost, "/mtls/realms/default/keys/rotate", ""); err != nil || status != http.StatusConflict || !strings.Contains(text, second) {
		t.Errorf("a second announcement returned %d %q, %v", status, text, err)
	}
	c.until(t, "all sign with the second key", signs(t, second), c.nodes...)
	third := b.rotate(t, "{}")
	for n, node := range c.nodes {
		node.Kill()
		others := slices.Delete(slices.Clone(c.nodes), n, n+1)
		c.check(t, others...)
		node.Run()
		c.check(t, c.nodes...)
	}
	c.until(t, "all sign with the third key", signs(t, third), c.nodes...)

	// storage becomes unavailable while a key is announced
	fourth := d.rotate(t, "")
	c.until(t, "all publish the fourth key", func(node process) bool {
		return slices.Contains(node.keyring(t).has("next"), fourth)
	}, c.nodes...)
	c.Write("no-folder", nil)
	c.link("storage", "no-folder")
	c.until(t, "all sign with the fourth key", signs(t, fourth), c.nodes...)
	if out, err := a.Reload(); err != nil {
		t.Fatalf("reloading: %v\n%s", err, out)
	}
	c.until(t, "all still sign with it", signs(t, fourth), c.nodes...)
	if status, text, err := b.Ask(http.MethodPost, "/mtls/realms/default/keys/rotate", `{"retire":"now"}`); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("an emergency rotation without storage returned %d %q, %v", status, text, err)
	}
	c.link("storage", "stored")
	for _, node := range c.nodes {
		rig.Await(c.Rig, t, node.Name+" says that storage is back", func() bool {
			return strings.Contains(node.Logged(), `"keys_readable"`)
		})
	}
	c.check(t, c.nodes...)

	c.revoke(t)

	// after an emergency rotation, the old keys are gone everywhere within moments
	fifth := d.rotate(t, `{"retire":"now"}`)
	if got := d.keyring(t); len(got.Keys) != 1 || got.Keys[0].ID != fifth {
		t.Errorf("after the emergency rotation the keys are %+v", got)
	}
	for _, node := range c.nodes {
		rig.Await(c.Rig, t, node.Name+" has the fifth key alone", func() bool {
			keys := c.published(t, node).Keys
			return len(keys) == 1 && keys[0].KeyID == fifth
		})
	}
	for kid, token := range c.tokens {
		for _, node := range c.nodes {
			node.Client.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusUnauthorized)
			body := node.Client.Do(http.MethodPost, "https://auth.test/connect/introspect", rig.Query("sensor-7", token)).WantStatus(t, http.StatusOK).Body
			if body != rig.Inactive {
				t.Errorf("%s introspects as %s a token of the retired key %s", node.Name, body, kid)
			}
		}
	}
	clear(c.tokens)
	c.check(t, c.nodes...)
	d.Kill()
	d.Run()
	c.until(t, "all sign with the fifth key", signs(t, fifth), c.nodes...)
}
