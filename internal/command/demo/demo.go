// Package demo shows certificate authentication and access tokens, with a Caddy that it
// starts on this machine.
package demo

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddymtls/caddy-mtls-auth/internal/freeport"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// demo is a Caddy instance and its clients. All files are in one folder.
type demo struct {
	out  io.Writer
	Dir  string
	API  string // host:port of the guarded API
	Auth string // host:port of the issuer
	Echo string // host:port of the upstream API

	// The sites that the examples use, and the upstreams that are examples.
	BearerAPI, HeadersAPI, HeadersUpstream, TokenAPI, TokenUpstream string

	leaves   map[string]*testpki.Leaf
	roots    *x509.CertPool
	failures []string
}

// caddyfile is the configuration of the demo. The name of the folder comes from
// the operating system, so it is quoted.
var caddyfile = template.Must(template.New("Caddyfile").Parse(`{
	admin off
	persist_config off
	auto_https off
	storage file_system "{{.Dir}}/storage"
	log {
		level ERROR
	}
	log everything {
		output file "{{.Dir}}/caddy.log"
		format json
	}
	mtls {
		trust_pool file "{{.Dir}}/clients-ca.pem"

		client billing.partner {
			subject "CN=billing, OU=production, O=Partner"
			scopes  invoices.read invoices.write
			claim   tenant partner-7
		}
		client sensor-7 {
			certificate "{{.Dir}}/sensor.pem"
			scopes      telemetry
		}

		issuer https://{{.Auth}} {
			token_lifetime 10m
			resource https://api.example.com {
				scopes invoices.read invoices.write telemetry
			}
		}
	}
}

(tls) {
	bind 127.0.0.1
	tls "{{.Dir}}/server.pem" "{{.Dir}}/server.key" {
		client_auth {
			mode request
		}
	}
}

https://{{.Auth}} {
	import tls
	mtls_issuer
	respond 404
}

https://{{.API}} {
	import tls
	mtls_auth {
		header_up X-Client-ID {http.mtls.client_id}
		header_up X-Client-Scope {http.mtls.scope}
	}
	reverse_proxy {{.Echo}}
}

http://{{.Echo}} {
	bind 127.0.0.1
	respond "hello {header.X-Client-ID}, your scopes are: {header.X-Client-Scope}"
}

# The API that the clients of the examples call, and two APIs that are examples.

https://{{.BearerAPI}} {
	import tls
	mtls_bearer {
		audience https://api.example.com
	}
	respond "hello {http.mtls.client_id}"
}

https://{{.HeadersAPI}} {
	import tls
	mtls_auth {
		header_up X-Client-ID {http.mtls.client_id}
		header_up X-Client-Scope {http.mtls.scope}
	}
	reverse_proxy {{.HeadersUpstream}}
}

https://{{.TokenAPI}} {
	import tls
	mtls_bearer {
		audience https://api.example.com
	}
	reverse_proxy {{.TokenUpstream}}
}
`))

// Run runs the demo, prints it to out and, unless once is set, waits for Ctrl-C.
// It returns an error if a step failed. The files stay in the folder keep, if it is not
// empty.
func Run(ctx context.Context, out io.Writer, once bool, keep string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	dir, err := makeFolder(keep)
	if err != nil {
		return err
	}
	if keep == "" {
		defer os.RemoveAll(dir)
	}
	d := &demo{out: out, Dir: filepath.ToSlash(dir)}
	if err := d.makeCertificates(); err != nil {
		return err
	}
	if err := d.startCaddy(); err != nil {
		return err
	}
	defer func() { _ = caddy.Stop() }()

	d.run(ctx)
	if len(d.failures) > 0 {
		return fmt.Errorf("demo failed: %s", strings.Join(d.failures, "; "))
	}
	if keep != "" {
		if err := d.writeEnvironment(); err != nil {
			return err
		}
		d.showExamples()
	}
	switch {
	case once:
		return nil
	case keep != "":
		d.say("\nCaddy runs until Ctrl-C.\n")
	default:
		d.say("\nCaddy runs until Ctrl-C, then removes the folder %s.\n", d.Dir)
	}
	<-ctx.Done()
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// mustMake stops the demo if a certificate cannot be made, which only a mistake in it
// can cause.
type mustMake struct{}

func (mustMake) Helper() {}

func (mustMake) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// makeCertificates makes a CA with one client, a client with a self-signed
// certificate, and an impostor with the subject of the first client and another CA.
func (d *demo) makeCertificates() error {
	var must mustMake
	ca := func(name string) *testpki.CA { return testpki.MustCA(must, testpki.CommonName(name)) }
	// a folder that is kept is of use for a while
	validity := testpki.Validity(time.Now().Add(-time.Hour), time.Now().AddDate(0, 0, days))
	clientsCA, serverCA, otherCA := ca("Demo clients CA"), ca("Demo server CA"), ca("Some other CA")
	billing := testpki.Subject(pkix.Name{CommonName: "billing", OrganizationalUnit: []string{"production"}, Organization: []string{"Partner"}})
	d.roots = serverCA.Pool()
	d.leaves = map[string]*testpki.Leaf{
		"billing":  testpki.MustIssue(must, clientsCA, billing, validity),
		"sensor":   testpki.MustSelfSigned(must, testpki.CommonName("sensor 7"), validity),
		"impostor": testpki.MustIssue(must, otherCA, billing, validity),
		"server":   testpki.MustIssue(must, serverCA, testpki.CommonName("localhost"), testpki.DNSNames("localhost"), testpki.EKU(x509.ExtKeyUsageServerAuth), validity),
	}
	for name, leaf := range d.leaves {
		if _, _, err := leaf.WriteFiles(d.Dir, name); err != nil {
			return err
		}
	}
	for name, ca := range map[string]*testpki.CA{"clients-ca": clientsCA, "server-ca": serverCA} {
		if _, err := ca.WriteFile(d.Dir, name); err != nil {
			return err
		}
	}
	return nil
}

// startCaddy starts Caddy on free ports.
func (d *demo) startCaddy() error {
	if err := freePorts(&d.API, &d.Auth, &d.Echo, &d.BearerAPI, &d.HeadersAPI, &d.HeadersUpstream, &d.TokenAPI, &d.TokenUpstream); err != nil {
		return err
	}
	for _, upstream := range []*string{&d.HeadersUpstream, &d.TokenUpstream} {
		*upstream = strings.Replace(*upstream, "localhost", "127.0.0.1", 1) // some programs take localhost for ::1
	}
	var text bytes.Buffer
	if err := caddyfile.Execute(&text, d); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "Caddyfile"), text.Bytes(), 0o600); err != nil {
		return err
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(text.Bytes(), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

// freePorts sets each address to localhost with a free port of its own, which nobody else
// gets before the process ends: the examples listen on some of them later.
func freePorts(addresses ...*string) error {
	for _, address := range addresses {
		port, _, err := freeport.Reserve()
		if err != nil {
			return err
		}
		*address = "localhost:" + port
	}
	return nil
}
