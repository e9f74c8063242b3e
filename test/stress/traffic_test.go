package stress_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

const (
	// maxReopened is how often in a row a worker may fail to open a connection.
	maxReopened = 30
	// afterEnd is how long a kept connection may be answered by a configuration that
	// has been replaced, and what that one reads late.
	afterEnd = 7 * time.Second
)

// held is an access token.
type held struct{ text, client, kid string }

// worker sends requests with all certificates, one after the other. It knows what it
// may be answered.
type worker struct {
	*stress
	protocol string
	// keeps is set if the worker keeps its connections when the configuration is
	// replaced, so that the one before may still answer.
	keeps   bool
	callers map[string]*rig.Caller
	reloads int64
	tokens  map[string]held // by certificate
}

// answer is what a request was answered: a short text, and the token if there is one.
type answer struct {
	text  string
	token held
}

// question is a request and what it should be answered in a state.
type question struct {
	what, leaf string
	kid        string // of the token that is sent
	ask        func(*rig.Caller, ...func(*http.Request)) (answer, error)
	want       func(state) string
}

// run asks until the stress ends. Each answer is checked.
func (w *worker) run() {
	defer w.workers.Done()
	defer w.close()
	random := mathrand.New(mathrand.NewPCG(1, uint64(w.answers.Load())))
	for !w.over() {
		q := w.choose(random)
		from := time.Now() // before it is asked whether the configuration is another
		if !w.keeps && w.reloads != w.reloadsEnded.Load() {
			w.reloads = w.reloadsEnded.Load()
			w.close()
		}
		got, err := w.send(q)
		to := time.Now()
		if w.keeps {
			from = from.Add(-afterEnd)
		}
		switch {
		case err != nil:
			w.failed("%s: %s of %s: %v", w.protocol, q.what, q.leaf, err)
			return
		case w.keeps && strings.HasPrefix(got.text, "503") && w.reloadsBegun.Load() > 0:
			w.close() // as the answer says
			continue
		case !w.oracle.right(from, to, q.kid, got.text, q.want):
			w.failed("%s: %s of %s: answer %q, which was wrong in every state between %s and %s: %s",
				w.protocol, q.what, q.leaf, got.text, from.Format(clockFormat), to.Format(clockFormat), w.oracle.text())
			return
		}
		if got.token.text != "" {
			w.tokens[q.leaf] = got.token
		}
		w.count(q.what + " " + strings.Fields(got.text)[0])
	}
}

const clockFormat = "05.000000"

// choose returns the next question.
func (w *worker) choose(random *mathrand.Rand) question {
	leaf := leafNames[random.IntN(len(leafNames))]
	token, has := w.tokens[leaf]
	switch n := random.IntN(10); {
	case leaf == "stranger" || n < 4:
		return guardQuestion(leaf)
	case !has || n < 6:
		id := leaf
		if leaf == "pinned" {
			id = pinnedClients[random.IntN(2)]
		}
		return tokenQuestion(leaf, id)
	case n < 9:
		return bearerQuestion(leaf, token)
	default:
		return introspectionQuestion(token)
	}
}

// known returns the client that a certificate belongs to, or "".
func (s state) known(leaf string) string {
	if leaf == "pinned" {
		return s.pinned
	}
	if leaf == "stranger" || leaf == "trusted" && !s.trusted || leaf == "revocable" && s.revoked || leaf == "stored" && !s.stored {
		return ""
	}
	return leaf
}

// registered reports whether a client is registered and enabled.
func (s state) registered(id string) bool {
	switch {
	case slices.Contains(pinnedClients, id):
		return s.pinned == id
	case id == "stored":
		return s.stored
	}
	return true
}

// admitted is the answer of an API to a client.
func (s state) admitted(id string) string {
	if id == "" {
		return "401"
	}
	text := fmt.Sprintf("200 %s %d", id, s.config)
	if id == "static" { // its claim is in the configuration
		text += fmt.Sprint(" ", s.config)
	}
	return text
}

// short is the answer of an API. A refusal is only its status, because each has an error
// id of its own.
func short(got rig.Reply) string {
	if got.Status != http.StatusOK {
		return fmt.Sprint(got.Status)
	}
	return strings.TrimSpace(fmt.Sprint(got.Status, " ", got.Body))
}

func guardQuestion(leaf string) question {
	return question{
		what: "guard", leaf: leaf,
		ask: func(c *rig.Caller, options ...func(*http.Request)) (answer, error) {
			got, err := c.Try(http.MethodGet, "https://api.test/", options...)
			return answer{text: short(got)}, err
		},
		want: func(s state) string { return s.admitted(s.known(leaf)) },
	}
}

func tokenQuestion(leaf, id string) question {
	return question{
		what: "token", leaf: leaf,
		ask: func(c *rig.Caller, options ...func(*http.Request)) (answer, error) {
			got, err := c.Try(http.MethodPost, "https://auth.test/connect/token", append(options, rig.Form(id))...)
			if err != nil || got.Status != http.StatusOK {
				return answer{text: fmt.Sprint(got.Status)}, err
			}
			return tokenAnswer(got.Body)
		},
		want: func(s state) string {
			if s.known(leaf) != id {
				return "400"
			}
			return "200 " + id
		},
	}
}

// tokenAnswer reads the answer to a token request.
func tokenAnswer(body string) (answer, error) {
	var got struct {
		Token string `json:"access_token"`
	}
	var header struct {
		Kid string `json:"kid"`
	}
	var claims struct {
		Client string `json:"client_id"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		return answer{}, err
	}
	parts := strings.Split(got.Token, ".")
	if len(parts) != 3 {
		return answer{}, fmt.Errorf("not a token: %.100q", body)
	}
	for i, into := range []any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			return answer{}, err
		}
	}
	return answer{text: "200 " + claims.Client, token: held{got.Token, claims.Client, header.Kid}}, nil
}

func bearerQuestion(leaf string, token held) question {
	return question{
		what: "bearer", leaf: leaf, kid: token.kid,
		ask: func(c *rig.Caller, options ...func(*http.Request)) (answer, error) {
			got, err := c.Try(http.MethodGet, "https://other.test/", append(options, rig.Bearer(token.text))...)
			return answer{text: short(got)}, err
		},
		want: func(s state) string {
			if s.known(leaf) != token.client || s.key != token.kid {
				return "401"
			}
			return fmt.Sprintf("200 %s %d", token.client, s.config)
		},
	}
}

func introspectionQuestion(token held) question {
	return question{
		what: "introspection", leaf: "static", kid: token.kid,
		ask: func(c *rig.Caller, options ...func(*http.Request)) (answer, error) {
			got, err := c.Try(http.MethodPost, "https://auth.test/connect/introspect", append(options, rig.Query("static", token.text))...)
			if err != nil || got.Status != http.StatusOK {
				return answer{text: fmt.Sprint(got.Status)}, err
			}
			var said struct {
				Active bool   `json:"active"`
				Client string `json:"client_id"`
			}
			err = json.Unmarshal([]byte(got.Body), &said)
			return answer{text: strings.TrimSpace(fmt.Sprint(said.Active, " ", said.Client))}, err
		},
		want: func(s state) string {
			if !s.registered(token.client) || s.key != token.kid {
				return "false"
			}
			return "true " + token.client
		},
	}
}

// send sends a question. Only what [rig.Caller.MayReopen] allows may fail.
func (w *worker) send(q question) (answer, error) {
	for reopened := 0; ; reopened++ {
		var open bool
		c := w.caller(q.leaf)
		got, err := q.ask(c, rig.Reused(&open), replayable)
		if err == nil || reopened == maxReopened || !c.MayReopen(err, open) {
			return got, err
		}
		w.count("reopened connection")
	}
}

// replayable has net/http send a POST request again if the server closes the idle
// connection that it was about to use.
func replayable(r *http.Request) { r.Header["X-Idempotency-Key"] = nil }

func (w *worker) caller(leaf string) *rig.Caller {
	c := w.callers[leaf]
	if c == nil {
		c = w.Connect(w.protocol, w.leaves[leaf])
		w.callers[leaf] = c
	}
	return c
}

func (w *worker) close() {
	for leaf, c := range w.callers {
		c.Close()
		delete(w.callers, leaf)
	}
}
