package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/caddymtls/caddy-mtls-auth/internal/probe"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// errThrough makes the process exit with status 1 after the report has been printed.
var errThrough = errors.New("spoofed requests got through")

// probeFlags are the flags of probe.
type probeFlags struct {
	cert, key, otherCert, otherKey string
	cacert, connect                string
	headers                        []string
	rate                           int
	timeout                        time.Duration
	echo                           bool
	listen                         string
}

func probeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe [<url>] [--cert <file>] [--key <file>] [--echo]",
		Short: "Sends spoofed requests to a gateway, and says which got through",
		Long: `
Sends a gateway the requests with which gateways that authenticate clients by
certificate have been bypassed, and says which of them an API behind it would
believe. The gateway may be any: this plugin, nginx, HAProxy, Envoy, Traefik.

PROBE ONLY WHAT YOU RUN YOURSELF. The requests are attacks. They can upset an
API, disturb other callers of the gateway, and set off alarms.

The API behind the gateway must be the one that this command also provides. It
answers with each request as it arrived, and remembers nothing:

	$ caddy mtls probe --echo --listen 127.0.0.1:9000

Then, with the certificate of a client that the gateway admits:

	$ caddy mtls probe https://api.example.com/orders --cert client.pem --key client.key

The headers in which the gateway names the client are found by comparing
callers, best with the certificate of another client in --other-cert. Or name
them with --header. To test how the gateway guards a path, name such a path.

Each request is sent with the certificate, without one, and with the other one,
over HTTP/1.1, HTTP/2 and HTTP/3 where it can be. The verdicts are:

	blocked      it did not reach the API
	stripped     it reached the API without the spoof
	got through  an API could be deceived
	cannot tell  nothing can be said, such as after a timeout

The exit status is 1 if anything got through.`,
		Args: cobra.MaximumNArgs(1),
	}
	var f probeFlags
	cmd.Flags().StringVar(&f.cert, "cert", "", "Certificate of a client that the gateway admits, with its chain (PEM)")
	cmd.Flags().StringVar(&f.key, "key", "", "Its private key (PEM)")
	cmd.Flags().StringVar(&f.otherCert, "other-cert", "", "Certificate of another client (PEM)")
	cmd.Flags().StringVar(&f.otherKey, "other-key", "", "Its private key (PEM)")
	cmd.Flags().StringVar(&f.cacert, "cacert", "", "CAs that vouch for the gateway (PEM; default: those of the system)")
	cmd.Flags().StringVar(&f.connect, "connect", "", "Address to connect to in place of the URL's, such as 10.0.0.5:443")
	cmd.Flags().StringArrayVar(&f.headers, "header", nil, "Header in which the gateway names the client (can be repeated; default: found by comparing callers)")
	cmd.Flags().IntVar(&f.rate, "rate", 20, "Requests a second, at most")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Second, "How long an answer may take")
	cmd.Flags().BoolVar(&f.echo, "echo", false, "Be the API behind the gateway instead")
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:9000", "Address of the API, with --echo")
	asJSON := addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		switch {
		case f.echo && len(args) > 0:
			return usagef("--echo is the API and probes nothing; remove the URL, or --echo")
		case f.echo:
			return runEcho(ctx, cmd.OutOrStdout(), f.listen)
		case len(args) == 0:
			return usagef("no URL to probe; name one, or provide the API with --echo")
		}
		gateway, err := f.gateway(args[0])
		if err != nil {
			return err
		}
		report, err := probe.Run(ctx, gateway, probe.Options{Headers: f.headers, Pause: time.Second / time.Duration(f.rate)})
		if report == nil {
			return err
		}
		if *asJSON {
			err = errors.Join(printJSON(cmd.OutOrStdout(), report), err)
		} else {
			err = errors.Join(printProbe(cmd.OutOrStdout(), report), err)
		}
		if err == nil && report.Counts[probe.GotThrough] > 0 {
			cmd.SilenceErrors = true
			return errThrough
		}
		return err
	}
	return cmd
}

// runEcho provides the echo API until ctx is done.
func runEcho(ctx context.Context, out io.Writer, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listening on %q: %w; name another address with --listen", address, err)
	}
	fmt.Fprintf(out, "The API for 'caddy mtls probe' is at http://%s until Ctrl-C. It answers with each request as it arrived.\n", listener.Addr())
	return new(probe.Echo).Serve(ctx, listener)
}

// gateway returns what the flags say about the gateway.
func (f *probeFlags) gateway(address string) (*probe.Gateway, error) {
	switch {
	case f.cert == "" || f.key == "":
		return nil, usagef("no certificate; name that of a client which the gateway admits, with --cert and --key")
	case (f.otherCert == "") != (f.otherKey == ""):
		return nil, usagef("--other-cert and --other-key belong together; name both")
	case f.rate < 1 || f.rate > 1000:
		return nil, usagef("rate %d; use 1 to 1000 requests a second", f.rate)
	case f.timeout < 100*time.Millisecond || f.timeout > time.Minute:
		return nil, usagef("timeout %s; use 100ms to 1m", f.timeout)
	}
	for _, name := range f.headers {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, usagef("%q is not the name of a header; use letters, digits and hyphens", source.Text(name, maxCell))
		}
	}
	g := &probe.Gateway{Address: f.connect, Timeout: f.timeout, Certificates: make(map[string]*tls.Certificate)}
	if err := g.SetURL(address); err != nil {
		return nil, usagef("URL '%s': %w", source.ShownURL(address), err)
	}
	for caller, files := range map[string][2]string{probe.WithCertificate: {f.cert, f.key}, probe.WithOther: {f.otherCert, f.otherKey}} {
		if files[0] == "" {
			continue
		}
		pair, err := tls.LoadX509KeyPair(files[0], files[1])
		if err != nil {
			return nil, fmt.Errorf("certificate '%s' with key '%s': %s; both must be PEM and belong together", files[0], files[1], source.Plain(err, maxAnswerError))
		}
		g.Certificates[caller] = &pair
	}
	if f.cacert != "" {
		text, err := os.ReadFile(f.cacert)
		if err != nil {
			return nil, err
		}
		if g.Roots = x509.NewCertPool(); !g.Roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("'%s' has no certificate; name a PEM file with the CAs of the gateway", f.cacert)
		}
	}
	return g, nil
}

// gravity orders the verdicts: that of a row is the gravest of its attempts.
var gravity = map[probe.Verdict]int{probe.Blocked: 0, probe.Stripped: 1, probe.CannotTell: 2, probe.GotThrough: 3}

// printProbe prints a line for each spoof and header.
func printProbe(out io.Writer, report *probe.Report) error {
	for _, identity := range report.Identity {
		fmt.Fprintf(out, "The gateway names the client in %s: %s\n", source.Text(identity.Header, maxCell), source.Text(identity.Value, maxCell))
	}
	refused := "everybody"
	if len(report.Refused) > 0 {
		refused = "all but callers with " + strings.Join(report.Refused, " and ")
	}
	fmt.Fprintf(out, "It lets through %s, and speaks %s.\n\n", refused, strings.Join(report.Protocols, ", "))

	type row struct {
		probe.Attempt
		times, through int
	}
	var rows []*row
	byKey := make(map[[2]string]*row)
	for _, attempt := range report.Attempts {
		key := [2]string{attempt.Spoof, attempt.Header}
		r := byKey[key]
		if r == nil {
			r = &row{Attempt: attempt}
			byKey[key], rows = r, append(rows, r)
		}
		if r.times++; attempt.Verdict == probe.GotThrough {
			r.through++
		}
		if gravity[attempt.Verdict] > gravity[r.Verdict] {
			r.Attempt = attempt
		}
	}
	t, through := newTable(out, column{title: "SPOOF"}, column{title: "HEADER"}, column{title: "VERDICT"}, column{title: "EVIDENCE", most: maxSourceError}), 0
	for _, r := range rows {
		evidence := fmt.Sprintf("%s, %s: %s", r.Caller, r.Protocol, r.Evidence)
		if r.Verdict == probe.GotThrough {
			evidence = fmt.Sprintf("%s (%d of %d; %s)", r.About, r.through, r.times, evidence)
			through++
		}
		t.row(r.Spoof, r.Header, string(r.Verdict), evidence)
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d of %d spoofs got through (%d requests).\n", through, len(rows), len(report.Attempts))
	return err
}
