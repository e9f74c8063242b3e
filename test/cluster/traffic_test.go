package cluster_test

import (
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// maxTokens is how many tokens the workers share.
const maxTokens = 60

// work sends requests to a node, one after the other, until the test ends. None may
// fail unless the node is down.
func (c *cluster) work(n *node, protocol string) {
	defer c.workers.Done()
	callers := make(map[string]*rig.Caller)
	closeAll := func() {
		for name, caller := range callers {
			caller.Close()
			delete(callers, name)
		}
	}
	defer closeAll()
	for i := 0; ; i++ {
		select {
		case <-c.stop:
			return
		default:
		}
		turn := n.turns.Load()
		if turn%2 == 1 {
			closeAll()
			time.Sleep(10 * time.Millisecond)
			continue
		}
		leaf := []string{"fixed", "stored"}[i%2]
		for _, name := range []string{"fixed", "stored"} {
			if callers[name] == nil {
				callers[name] = n.Connect(protocol, c.leaves[name])
			}
		}
		what, err := c.ask(n, callers, leaf, i/2%4)
		switch {
		case turn != n.turns.Load(): // it was taken down meanwhile
		case err != nil:
			c.mu.Lock()
			c.wrong = append(c.wrong, fmt.Sprintf("%s over %s: %s of %s: %v", n.Name, protocol, what, leaf, err))
			c.mu.Unlock()
		default:
			n.answers.Add(1)
		}
	}
}

// ask sends one request and checks the answer.
func (c *cluster) ask(n *node, callers map[string]*rig.Caller, leaf string, kind int) (what string, err error) {
	token, alone := c.token(), n.alone.Load()
	if alone && kind > 1 {
		kind -= 2
	}
	switch {
	case kind == 0 || kind > 1 && token == "":
		return "guard", want(callers[leaf], http.MethodGet, "https://api.test/", "hello "+leaf)
	case kind == 1:
		got, err := try(callers[leaf], http.MethodPost, "https://auth.test/connect/token", rig.Form(leaf))
		if err == nil && got.Status != http.StatusOK {
			err = fmt.Errorf("%d %s", got.Status, got.Body)
		}
		if err == nil && leaf == "stored" && !alone {
			err = c.keep(got.Body)
		}
		return "token", err
	case kind == 2:
		return "bearer", want(callers["stored"], http.MethodGet, "https://other.test/", "hello stored", rig.Bearer(token))
	default:
		return "introspection", want(callers["fixed"], http.MethodPost, "https://auth.test/connect/introspect", `"active":true`, rig.Query("fixed", token))
	}
}

// try sends a request. While a node loads a configuration, a connection that is being
// opened may fail, and one that is idle may be closed.
func try(caller *rig.Caller, method, url string, options ...func(*http.Request)) (rig.Reply, error) {
	const attempts = 30
	for n := 1; ; n++ {
		var open bool
		replayable := func(r *http.Request) { r.Header["X-Idempotency-Key"] = nil }
		got, err := caller.Try(method, url, append(options, rig.Reused(&open), replayable)...)
		if err == nil || open || n == attempts {
			return got, err
		}
	}
}

// want sends a request that must be answered with this text.
func want(caller *rig.Caller, method, url, text string, options ...func(*http.Request)) error {
	got, err := try(caller, method, url, options...)
	if err == nil && (got.Status != http.StatusOK || !strings.Contains(got.Body, text)) {
		err = fmt.Errorf("%d %.200q, WWW-Authenticate %q", got.Status, got.Body, got.Header.Get("WWW-Authenticate"))
	}
	return err
}

// keep shares the token of an answer.
func (c *cluster) keep(body string) error {
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == maxTokens {
		c.tokens[mathrand.IntN(maxTokens)] = answer.Token
	} else {
		c.tokens = append(c.tokens, answer.Token)
	}
	return nil
}

// token returns one of the shared tokens.
func (c *cluster) token() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == 0 {
		return ""
	}
	return c.tokens[mathrand.IntN(len(c.tokens))]
}
