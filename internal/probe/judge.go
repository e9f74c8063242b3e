package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// Verdict says what became of a spoof.
type Verdict string

// The verdicts.
const (
	// Blocked means that the request did not reach the API.
	Blocked Verdict = "blocked"
	// Stripped means that the request reached the API without the spoof.
	Stripped Verdict = "stripped"
	// GotThrough means that an API could be deceived.
	GotThrough Verdict = "got through"
	// CannotTell means that nothing can be said, such as after a timeout.
	CannotTell Verdict = "cannot tell"
)

// maxEvidence bounds the evidence of an attempt, in bytes.
const maxEvidence = 160

// lateEvidence is the evidence of a timeout.
const lateEvidence = "no answer in time"

// judgement is a verdict and why.
type judgement struct {
	verdict  Verdict
	evidence string
}

func through(format string, args ...any) *judgement {
	return &judgement{GotThrough, source.Text(fmt.Sprintf(format, args...), maxEvidence)}
}

// attempt is what a judgement is about.
type attempt struct {
	*facts
	check   check
	caller  string
	refused bool // the caller's honest request does not reach the API
	guarded []string
}

// judge decides about what came back.
func (a *attempt) judge(got result) judgement {
	for _, answer := range got.answers {
		if answer.Seen == nil {
			continue
		}
		if found := a.find(answer.Seen); found != nil {
			return *found
		}
	}
	return a.withoutFinding(got)
}

// withoutFinding returns the judgement where nothing got through.
func (a *attempt) withoutFinding(got result) judgement {
	for _, answer := range got.answers {
		switch {
		case answer.Seen == nil:
		case a.check == checkBypass && a.refused:
			return judgement{Blocked, source.Text("another path reached the API: "+answer.Seen.Target, maxEvidence)}
		case !answer.Seen.answers(a.nonce) && !answer.Seen.answers(a.forged):
			return judgement{CannotTell, "the answer is that to another request"}
		case a.caller == WithCertificate && a.check != checkLeak && readsAs(answer.Seen, a.guarded[0]) == nil:
			return judgement{Stripped, "but the identity of the caller is missing too"}
		default:
			return judgement{Stripped, "the API saw no forged value"}
		}
	}
	if len(got.answers) == 0 {
		return judgeError(got.err)
	}
	if status := got.answers[0].Status; status < 200 || status >= 300 {
		return judgement{Blocked, fmt.Sprintf("answered %d", status)}
	}
	return judgement{CannotTell, fmt.Sprintf("something else than the echo API answered %d", got.answers[0].Status)}
}

// judgeError decides about a request without an answer.
func judgeError(err error) judgement {
	var timeout net.Error
	text := source.Text(fmt.Sprint(err), maxEvidence)
	switch {
	case errors.Is(err, errUnreachable):
		return judgement{CannotTell, text}
	case errors.As(err, &timeout) && timeout.Timeout():
		return judgement{CannotTell, lateEvidence}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return judgement{Blocked, "the gateway closed the connection"}
	}
	return judgement{Blocked, text}
}

// find returns how a request deceives an API, or nil.
func (a *attempt) find(seen *Seen) *judgement {
	switch a.check {
	case checkRemoval:
		if readsAs(seen, a.name) == nil {
			return through("%s did not reach the API", a.name)
		}
	case checkFirst:
		if list := readsAs(seen, a.name); len(list) > 0 {
			if first, _, _ := strings.Cut(list[0], ","); strings.Contains(first, a.forged) {
				return through("the API saw %s: %s", a.name, list[0])
			}
		}
	case checkLeak:
		if list := readsAs(seen, a.name); slices.Contains(list, a.honest) {
			return through("the API saw %s: %s", a.name, a.withoutSecret(a.honest))
		}
	case checkBypass:
		if found := a.findForged(seen); found != nil {
			return found
		}
		if a.refused && asAPIReads(seen.Target) == asAPIReads(a.gateway.path) {
			return through("the API saw %s without a certificate", seen.Target)
		}
	case checkSmuggling, checkFraming, checkUpgrade:
		return a.findHidden(seen)
	default:
		return a.findForged(seen)
	}
	return nil
}

// findForged looks for the forged value where an API reads an identity.
func (a *attempt) findForged(seen *Seen) *judgement {
	for i, list := range [][]string{seen.Lines, seen.Trailers} {
		for _, f := range fieldsAsRead(list) {
			if strings.Contains(f[1], a.forged) && (folded(f[0]) == folded(a.name) || a.carriesIdentity(f[0])) {
				where := [2]string{"", " in a trailer"}[i]
				return through("the API saw %s: %s%s", f[0], source.Text(a.withoutSecret(f[1]), maxEvidence/2), where)
			}
		}
	}
	return nil
}

// withoutSecret returns a value without the caller's token, which others could use.
func (a *attempt) withoutSecret(value string) string {
	if folded(a.name) != "authorization" || a.honest == "" {
		return value
	}
	return strings.ReplaceAll(value, a.honest, "…")
}

func (a *attempt) carriesIdentity(name string) bool {
	return slices.ContainsFunc(a.guarded, func(guarded string) bool { return folded(guarded) == folded(name) })
}

// findHidden looks for a request that was hidden in another one, or for what makes an
// API find one there.
func (a *attempt) findHidden(seen *Seen) *judgement {
	if strings.Contains(seen.Target, a.forged) {
		switch {
		case a.findForged(seen) != nil:
			return a.findForged(seen)
		case a.caller == WithCertificate && readsAs(seen, a.guarded[0]) == nil:
			return through("the API saw the hidden request %s, which the gateway did not", seen.Target)
		case a.caller != WithCertificate && a.refused:
			return through("the API saw the hidden request %s without a certificate", seen.Target)
		}
		return nil // the gateway saw it too
	}
	if a.check == checkUpgrade {
		if list := readsAs(seen, "Upgrade"); slices.ContainsFunc(list, func(value string) bool { return strings.Contains(strings.ToLower(value), "h2c") }) {
			return through("the API was asked to switch to h2c")
		}
	}
	if a.check != checkFraming {
		return nil
	}
	lengths, codings := readsAs(seen, "Content-Length"), readsAs(seen, "Transfer-Encoding")
	ambiguous := len(codings) > 1 || len(codings) == 1 && (len(lengths) > 0 || !strings.EqualFold(codings[0], "chunked"))
	for _, length := range lengths {
		ambiguous = ambiguous || length != lengths[0] || strings.Trim(length, "0123456789") != ""
	}
	if ambiguous {
		return through("the API saw Content-Length %q and Transfer-Encoding %q", lengths, codings)
	}
	return nil
}

// answers reports whether this is the request with the nonce.
func (s *Seen) answers(nonce string) bool {
	return slices.Contains(values(s.Lines, nonceHeader), nonce)
}

// readsAs returns the values of the header that an API may read as this one, without
// those that are empty.
func readsAs(seen *Seen, name string) (list []string) {
	for _, f := range fieldsAsRead(seen.Lines) {
		if folded(f[0]) == folded(name) && f[1] != "" {
			list = append(list, f[1])
		}
	}
	return list
}

// fieldsAsRead returns names and values of lines, read in every way in which an API
// may: it may end a line at a CR, and take a continuation for a line or for a part of
// the value before.
func fieldsAsRead(lines []string) (fields [][2]string) {
	for _, line := range lines {
		for _, part := range strings.FieldsFunc(line, func(r rune) bool { return r == '\r' || r == '\n' }) {
			if strings.TrimLeft(part, " \t") != part && len(fields) > 0 {
				before := &fields[len(fields)-1]
				before[1] = strings.TrimSpace(before[1] + " " + strings.TrimSpace(part))
			}
			if name, value, ok := strings.Cut(part, ":"); ok {
				fields = append(fields, [2]string{strings.TrimSpace(name), strings.TrimSpace(value)})
			}
		}
	}
	return fields
}

// folded returns a name as APIs compare it that see no difference between a hyphen and
// what is neither a letter nor a digit.
func folded(name string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name)), "-")
}

// asAPIReads returns the path of a target as a lenient API reads it.
func asAPIReads(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok {
		_, rest, _ = strings.Cut(rest, "/")
		target = "/" + rest
	}
	target, _, _ = strings.Cut(target, "?")
	for range 2 {
		if decoded, err := url.PathUnescape(target); err == nil {
			target = decoded
		}
	}
	target, _, _ = strings.Cut(target, "\x00")
	segments := strings.Split(strings.ReplaceAll(target, `\`, "/"), "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.ToLower(path.Clean("/" + strings.Join(segments, "/")))
}
