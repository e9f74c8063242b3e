// Package clienttoken gets an access token as a client does, and says how far that went,
// for `caddy mtls token`.
package clienttoken

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// The steps of a request, in the order in which a person would look.
const (
	StepName        = "name"        // the host has an address
	StepConnect     = "connect"     // something answers there
	StepTLS         = "tls"         // its certificate is good
	StepCertificate = "certificate" // it asks for the client's, and takes it
	StepAnswer      = "answer"      // it answers as it should
	StepToken       = "token"       // the answer is a token that is what it should be
)

// maxText bounds what is shown of a name or an answer, in bytes.
const maxText = 200

// Step is a step of a request. The text is fit for a terminal.
type Step struct {
	Name string `json:"step"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// trail notes how far a request goes.
type trail struct {
	host    string
	proxied bool              // so a proxy looks up the host
	leaf    *x509.Certificate // of the client

	mu        sync.Mutex // the rest is written by goroutines of net/http
	addresses []string
	dnsErr    error
	dialed    string // the address that answered
	dialErr   error
	tls       *tls.ConnectionState
	tlsErr    error
	asked     bool
	unfit     error // why the server's list of CAs or algorithms leaves out the client's certificate
}

func newTrail(request *http.Request, leaf *x509.Certificate) *trail {
	proxy, err := http.ProxyFromEnvironment(request)
	return &trail{host: request.URL.Hostname(), proxied: proxy != nil || err != nil, leaf: leaf}
}

// trace returns the hooks that fill the trail.
func (t *trail) trace() *httptrace.ClientTrace {
	note := func(change func()) {
		t.mu.Lock()
		defer t.mu.Unlock()
		change()
	}
	return &httptrace.ClientTrace{
		DNSDone: func(info httptrace.DNSDoneInfo) {
			note(func() {
				t.dnsErr = info.Err
				for _, address := range info.Addrs {
					t.addresses = append(t.addresses, address.String())
				}
			})
		},
		ConnectDone: func(_, address string, err error) {
			note(func() {
				if err == nil {
					t.dialed = address
				} else if t.dialErr == nil {
					t.dialErr = err
				}
			})
		},
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			note(func() { t.tls, t.tlsErr = &state, err })
		},
	}
}

// certificate returns the client's certificate to a server that asks for it. It is sent
// whatever CAs the server names.
func (t *trail) certificate(identity *tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.asked, t.unfit = true, info.SupportsCertificate(identity)
		return identity, nil
	}
}

// refusalIsLost reports whether the server ended a connection for which it had asked for a
// certificate, and the error does not say why.
func (t *trail) refusalIsLost(err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asked && t.tls != nil && t.tlsErr == nil && alertOf(err) == "" && !isTimeout(err) && !t.proxied
}

// steps returns how far the request went. err is the error of the request, nil if there
// is an answer.
func (t *trail) steps(err error) (steps []Step, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	add := func(name string, ok bool, text string) bool {
		steps = append(steps, Step{name, ok, text})
		return ok
	}
	if _, literal := netip.ParseAddr(t.host); literal != nil && !t.proxied { // an address needs no name
		if ok, text := t.name(); !add(StepName, ok, text) {
			return steps, true
		}
	}
	if t.dialed == "" {
		add(StepConnect, false, connectFailure(t.dialErr, err))
		return steps, true
	}
	if t.proxied {
		add(StepConnect, true, "connected to the proxy of the environment at "+t.dialed)
	} else {
		add(StepConnect, true, "connected to "+t.dialed)
	}
	alert := alertOf(err)
	if t.tls == nil || t.tlsErr != nil && alert == "" {
		add(StepTLS, false, tlsFailure(cmp.Or(t.tlsErr, err), t.host))
		return steps, true
	}
	if alert != "" && !t.asked {
		add(StepTLS, false, alertFailure(alert, t.host))
		return steps, true
	}
	if t.tlsErr == nil {
		add(StepTLS, true, serverText(t.tls))
	}
	text := t.certificateText()
	if alert != "" {
		add(StepCertificate, false, text+". The server refused it in the handshake: "+certificateAlert(alert, t.leaf))
		return steps, true
	}
	add(StepCertificate, true, text)
	if err != nil {
		add(StepAnswer, false, "the server does not answer: "+causeText(err))
		return steps, true
	}
	return steps, false
}

func (t *trail) name() (ok bool, text string) {
	switch {
	case t.dnsErr != nil:
		return false, "'" + source.Text(t.host, maxText) + "' has no address (" + causeText(t.dnsErr) + "); check its spelling and the DNS"
	case len(t.addresses) == 0:
		return true, source.Text(t.host, maxText)
	}
	return true, source.Text(t.host, maxText) + " is " + strings.Join(t.addresses, ", ")
}

// certificateText says whether the client's certificate was sent.
func (t *trail) certificateText() string {
	name := "'" + source.Text(dn.Format(t.leaf.RawSubject), maxText) + "'"
	switch {
	case !t.asked:
		return "NOT sent, because the server did not ask for one; a site of Caddy asks with 'client_auth { mode request }' in its 'tls' block"
	case t.unfit != nil:
		return name + " sent. But the server asks for certificates of other CAs, so other clients may withhold it"
	}
	return "asked for, and " + name + " sent"
}

// serverText describes the server's end of a TLS connection.
func serverText(state *tls.ConnectionState) string {
	text := tls.VersionName(state.Version)
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		text += ", certificate " + certificateName(leaf) + " of '" + source.Text(dn.Format(leaf.RawIssuer), maxText) + "'"
	}
	return text
}
