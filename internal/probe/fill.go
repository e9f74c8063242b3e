package probe

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// facts are what the texts of a spoof are filled in with.
type facts struct {
	gateway *Gateway
	name    string // of the header
	honest  string // value in it
	forged  string
	nonce   string
}

// smuggled is the request that hides in another one.
const smuggled = "GET {path}?{forged} HTTP/1.1\r\nHost: {host}\r\nX-Probe-Nonce: {forged}\r\n{name}: {forged}\r\n\r\n"

// lengthMark stands for the length of a body until it is known.
const lengthMark = "{length}"

// fill replaces the names in {…} of a text.
func (f *facts) fill(text string) string {
	g := f.gateway
	encode := func(percent string) string {
		for i := len(g.path) - 1; i > 0; i-- {
			if c := g.path[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
				return g.path[:i] + fmt.Sprintf("%s%02x", percent, c) + g.path[i+1:]
			}
		}
		return "/" + percent + "2e" + g.path // no letter, so the dot of /.
	}
	underscore := f.name
	if i := strings.LastIndexByte(f.name, '-'); i >= 0 {
		underscore = f.name[:i] + "_" + f.name[i+1:]
	}
	simple := strings.NewReplacer(
		"{name}", f.name, "{lower}", strings.ToLower(f.name), "{upper}", strings.ToUpper(f.name),
		"{underscores}", strings.ReplaceAll(f.name, "-", "_"), "{underscore}", underscore, "{dots}", strings.ReplaceAll(f.name, "-", "."),
		"{forged}", f.forged, "{honest}", f.honest, "{nonce}", f.nonce,
		"{long}", strings.Repeat("a", 4<<10), "{huge}", strings.Repeat("a", 64<<10),
		"{scheme}", g.scheme, "{host}", g.host, "{HOST}", strings.ToUpper(g.host), "{hostname}", g.hostname,
		"{path}", g.path, "{PATH}", strings.ToUpper(g.path), "{rest}", strings.TrimPrefix(g.path, "/"),
		"{encoded}", encode("%"), "{encoded2}", encode("%25"),
	)
	inner := simple.Replace(smuggled)
	size := strconv.FormatInt(int64(len(inner)), 16)
	text = strings.NewReplacer("{smuggled}", inner, "{hex}", size, "{te-cl}", strconv.Itoa(len(size)+2)).Replace(simple.Replace(text))
	_, body, _ := strings.Cut(text, "\r\n\r\n")
	return strings.ReplaceAll(text, lengthMark, strconv.Itoa(len(body)))
}

// message fills in a message.
func (f *facts) message(m Message) Message {
	fillAll := func(list []string) (filled []string) {
		for _, text := range list {
			filled = append(filled, f.fill(text))
		}
		return filled
	}
	filled := Message{
		Method: m.Method, Target: f.fill(m.Target), Version: m.Version, Host: f.fill(m.Host), SNI: m.SNI,
		Lines: fillAll(m.Lines), Body: f.fill(m.Body), Trailers: fillAll(m.Trailers), Raw: f.fill(m.Raw),
	}
	if filled.Method == "" {
		filled.Method = "GET"
	}
	if filled.Target == "" {
		filled.Target = f.gateway.path
	}
	if filled.Version == "" {
		filled.Version = "HTTP/1.1"
	}
	if filled.Host == "" {
		filled.Host = f.gateway.host
	}
	filled.Lines = append([]string{nonceHeader + ": " + f.nonce}, filled.Lines...)
	return filled
}

// nonceHeader tells the answers of the echo API apart.
const nonceHeader = "X-Probe-Nonce"

// text returns a message as HTTP/1 sends it.
func (m *Message) text() string {
	if m.Raw != "" {
		return m.Raw
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s %s\r\nHost: %s\r\n", m.Method, m.Target, m.Version, m.Host)
	for _, line := range m.Lines {
		out.WriteString(line + "\r\n")
	}
	switch {
	case m.Trailers != nil:
		fmt.Fprintf(&out, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(m.Body), m.Body)
		for _, line := range m.Trailers {
			out.WriteString(line + "\r\n")
		}
	case m.Body != "":
		fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n%s", len(m.Body), m.Body)
		return out.String()
	}
	return out.String() + "\r\n"
}

// unique returns a text that no other request has.
func unique(prefix string) string {
	random := make([]byte, 6)
	_, _ = rand.Read(random)
	return prefix + hex.EncodeToString(random)
}
