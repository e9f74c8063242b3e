package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxIdentityHeaders bounds the headers that are forged.
const maxIdentityHeaders = 4

// Options say how a gateway is probed.
type Options struct {
	// Headers carry the identity. Default: found by comparing callers.
	Headers []string
	// Spoofs are what is sent. Default: [Spoofs].
	Spoofs []Spoof
	// Pause is how long to wait between two requests.
	Pause time.Duration
	// Progress is told how many of the attempts are done, unless nil.
	Progress func(done, all int)
}

// Identity is a header in which the gateway tells the API who the caller is.
type Identity struct {
	Header string `json:"header"`
	Value  string `json:"value"` // for the caller with the certificate
}

// Attempt is a spoof that was sent, and what became of it.
type Attempt struct {
	Spoof    string   `json:"spoof"`
	Threats  []string `json:"threats,omitempty"`
	About    string   `json:"about"`
	Header   string   `json:"header"`
	Caller   string   `json:"caller"`
	Protocol string   `json:"protocol"`
	Verdict  Verdict  `json:"verdict"`
	Evidence string   `json:"evidence"`
}

// Report is the outcome of probing a gateway.
type Report struct {
	Protocols []string        `json:"protocols"`
	Identity  []Identity      `json:"identity"`
	Refused   []string        `json:"refused"` // callers whose honest request does not reach the API
	Attempts  []Attempt       `json:"attempts"`
	Counts    map[Verdict]int `json:"counts"`
}

// runner sends the spoofs of a run.
type runner struct {
	gateway *Gateway
	options Options
	report  *Report
	refused map[string]bool
	honest  map[string]string // identity header to value
	last    time.Time
}

// Run probes a gateway that fronts the echo API.
func Run(ctx context.Context, gateway *Gateway, options Options) (*Report, error) {
	if options.Spoofs == nil {
		options.Spoofs = Spoofs()
	}
	r := &runner{
		gateway: gateway, options: options, refused: make(map[string]bool), honest: make(map[string]string),
		report: &Report{Protocols: []string{}, Identity: []Identity{}, Refused: []string{}, Attempts: []Attempt{}, Counts: make(map[Verdict]int)},
	}
	if err := r.learn(ctx); err != nil {
		return nil, err
	}
	todo := r.plan()
	for i, one := range todo {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.try(ctx, one)
		if options.Progress != nil {
			options.Progress(i+1, len(todo))
		}
	}
	if got, _ := r.sendHonest(ctx, WithCertificate, r.report.Protocols[0]); seenIn(got) == nil {
		return r.report, fmt.Errorf("the gateway no longer lets the honest request through (%s), so do not rely on what was blocked; is there a limit of requests?", withoutSpoof(got))
	}
	return r.report, nil
}

// planned is a request that is to be sent.
type planned struct {
	spoof                  *Spoof
	header, caller, speaks string
}

// plan returns what is to be sent.
func (r *runner) plan() (todo []planned) {
	var carrying []string
	for _, identity := range r.report.Identity {
		carrying = append(carrying, identity.Header)
	}
	for i := range r.options.Spoofs {
		spoof := &r.options.Spoofs[i]
		headers := carrying
		if spoof.Check != checkForgery && spoof.Check != checkRemoval {
			headers = carrying[:1]
		}
		if spoof.Headers != nil {
			headers = slices.DeleteFunc(slices.Clone(spoof.Headers), func(name string) bool {
				known := slices.ContainsFunc(carrying, func(other string) bool { return folded(other) == folded(name) })
				return known != (name == "Authorization")
			})
		}
		for _, header := range headers {
			for _, caller := range spoof.Callers {
				if caller == WithOther && r.gateway.Certificates[WithOther] == nil {
					continue
				}
				for _, protocol := range spoof.Protocols {
					if slices.Contains(r.report.Protocols, protocol) {
						todo = append(todo, planned{spoof, header, caller, protocol})
					}
				}
			}
		}
	}
	return todo
}

// try sends a spoof and notes what became of it.
func (r *runner) try(ctx context.Context, one planned) {
	spoof := one.spoof
	f := &facts{gateway: r.gateway, name: one.header, honest: r.honest[one.header], forged: unique("forged-"), nonce: unique("probe-")}
	a := &attempt{facts: f, check: spoof.Check, caller: one.caller, refused: r.refused[one.caller]}
	for _, identity := range r.report.Identity {
		a.guarded = append(a.guarded, identity.Header)
	}
	if spoof.Check == checkLeak {
		_, _ = r.sendHonest(ctx, WithCertificate, one.speaks)
	}
	hides := spoof.Check == checkSmuggling || spoof.Check == checkFraming || spoof.Check == checkUpgrade
	message, then := f.message(spoof.Message), f.fill(spoof.Then)
	judged := a.judge(r.send(ctx, one.caller, one.speaks, message, then, hides))
	if judged.evidence == lateEvidence { // a busy machine gets a second chance
		judged = a.judge(r.send(ctx, one.caller, one.speaks, message, then, hides))
	}
	if hides {
		// what was hidden may be answered to whoever comes next
		for range 2 {
			if next, _ := r.sendHonest(ctx, WithCertificate, one.speaks); judged.verdict != GotThrough && seenIn(next) != nil {
				if found := a.findHidden(seenIn(next)); found != nil {
					judged = *found
				}
			}
		}
	}
	r.report.Counts[judged.verdict]++
	r.report.Attempts = append(r.report.Attempts, Attempt{
		Spoof: spoof.Name, Threats: spoof.Threats, About: spoof.About, Header: one.header, Caller: one.caller, Protocol: one.speaks,
		Verdict: judged.verdict, Evidence: judged.evidence,
	})
}

// send sends a message, not faster than asked.
func (r *runner) send(ctx context.Context, caller, protocol string, m Message, then string, extra bool) result {
	if wait := r.options.Pause - time.Since(r.last); wait > 0 {
		select {
		case <-ctx.Done():
			return result{err: ctx.Err()}
		case <-time.After(wait):
		}
	}
	r.last = time.Now()
	return r.gateway.send(ctx, caller, protocol, m, then, extra)
}

// sendHonest sends a request that spoofs nothing, and returns its nonce.
func (r *runner) sendHonest(ctx context.Context, caller, protocol string) (result, string) {
	f := &facts{gateway: r.gateway, nonce: unique("probe-")}
	return r.send(ctx, caller, protocol, f.message(Message{}), "", false), f.nonce
}

// seenIn returns the first request that reached the API, or nil.
func seenIn(got result) *Seen {
	for _, answer := range got.answers {
		if answer.Seen != nil {
			return answer.Seen
		}
	}
	return nil
}

// withoutSpoof says why an honest request did not reach the API.
func withoutSpoof(got result) string {
	if len(got.answers) > 0 {
		return fmt.Sprintf("the gateway answered %d", got.answers[0].Status)
	}
	return source.Text(fmt.Sprint(got.err), maxEvidence)
}

// learn finds out how an honest request arrives.
func (r *runner) learn(ctx context.Context) error {
	var why []string
	var seen *Seen
	for _, protocol := range all {
		got, nonce := r.sendHonest(ctx, WithCertificate, protocol)
		arrived := seenIn(got)
		switch {
		case arrived == nil:
			why = append(why, protocol+": "+withoutSpoof(got))
			continue
		case !arrived.answers(nonce):
			return fmt.Errorf("the API answers another request than the one sent, or the gateway drops %s; pass it on, and turn caches off", nonceHeader)
		case seen == nil:
			seen = arrived
		}
		r.report.Protocols = append(r.report.Protocols, protocol)
	}
	if seen == nil {
		return fmt.Errorf("the honest request does not reach the echo API (%s); put 'caddy mtls probe --echo' behind the gateway, and check the certificate", strings.Join(why, "; "))
	}
	again, _ := r.sendHonest(ctx, WithCertificate, r.report.Protocols[0])
	if seenIn(again) == nil {
		return errors.New("the gateway let the honest request through only once")
	}
	var others []*Seen
	for _, caller := range []string{WithoutCertificate, WithOther} {
		if caller == WithOther && r.gateway.Certificates[WithOther] == nil {
			continue
		}
		got, _ := r.sendHonest(ctx, caller, r.report.Protocols[0])
		if arrived := seenIn(got); arrived != nil {
			others = append(others, arrived)
		} else {
			r.refused[caller] = true
			r.report.Refused = append(r.report.Refused, caller)
		}
	}
	return r.chooseHeaders(seen, seenIn(again), others)
}

// chooseHeaders finds the headers that carry the identity.
func (r *runner) chooseHeaders(seen, again *Seen, others []*Seen) error {
	names := r.options.Headers
	if names == nil {
		names = identityHeaders(seen, again, others)
	}
	for _, name := range names[:min(len(names), maxIdentityHeaders)] {
		list := values(seen.Lines, name)
		if len(list) == 0 {
			return fmt.Errorf("the API gets no header '%s'; check its spelling", source.Text(name, 80))
		}
		r.honest[name] = list[0]
		shown := list[0]
		if folded(name) == "authorization" { // a token is a secret
			scheme, _, _ := strings.Cut(shown, " ")
			shown = scheme + " …"
		}
		r.report.Identity = append(r.report.Identity, Identity{source.Text(name, 80), source.Text(shown, maxEvidence)})
	}
	if len(names) == 0 {
		return errors.New("found no header that names the caller; name it with --header, or give another client's certificate with --other-cert to compare")
	}
	return nil
}

// ordinary are headers that gateways add whoever calls, folded.
var ordinary = []string{
	"host", "connection", "x-probe-nonce", "via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port",
	"x-forwarded-server", "x-real-ip", "accept-encoding", "user-agent", "content-length", "transfer-encoding", "x-request-id", "x-envoy-expected-rq-timeout-ms",
	"traceparent", "tracestate", "te",
}

// identityHeaders returns the headers that differ between callers but not between two
// requests of one. If no other caller's request arrives, they are all that the gateway
// has added and that are not ordinary.
func identityHeaders(seen, again *Seen, others []*Seen) (names []string) {
	for _, f := range fieldsAsRead(seen.Lines) {
		name := f[0]
		if slices.Contains(ordinary, folded(name)) || slices.Contains(names, name) {
			continue
		}
		own, differs := values(seen.Lines, name), len(others) == 0
		for _, other := range others {
			differs = differs || !slices.Equal(own, values(other.Lines, name))
		}
		// a token is minted anew from time to time
		if differs && (slices.Equal(own, values(again.Lines, name)) || folded(name) == "authorization") {
			names = append(names, name)
		}
	}
	return names
}
