package command_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/caddymtls/caddy-mtls-auth/internal/freeport"
	"github.com/caddymtls/caddy-mtls-auth/internal/probe"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// probedGateway is a gateway in Go that names callers in X-Client-ID, in front of the echo
// API. It returns its URL and the flags of probe.
func probedGateway(t *testing.T, pass func(http.Header)) (address string, flags []string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = new(probe.Echo).Serve(ctx, listener) }()
	upstream := &url.URL{Scheme: "http", Host: listener.Addr().String()}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(upstream)
		pass(r.Out.Header)
		r.Out.Trailer = nil
		r.Out.Header.Del("X-Client-ID")
		if callers := r.In.TLS.PeerCertificates; len(callers) > 0 {
			r.Out.Header.Set("X-Client-ID", callers[0].Subject.CommonName)
		}
	}}
	port, release, err := freeport.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	gateway := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect || r.Header.Get("Upgrade") != "" {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	_ = gateway.Listener.Close()
	if gateway.Listener, err = net.Listen("tcp", "127.0.0.1:"+port); err != nil {
		t.Fatal(err)
	}
	gateway.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	gateway.StartTLS()
	t.Cleanup(gateway.Close)
	// it refuses HTTP/3, so that nobody has to wait for no answer
	refusing, err := quic.ListenAddr("127.0.0.1:"+port, &tls.Config{Certificates: gateway.TLS.Certificates, NextProtos: []string{"none"}, MinVersion: tls.VersionTLS13}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = refusing.Close() })
	dir := t.TempDir()
	certFile, keyFile, err := testpki.MustSelfSigned(t, testpki.CommonName("billing")).WriteFiles(dir, "billing")
	if err != nil {
		t.Fatal(err)
	}
	ca := writeFile(t, dir, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: gateway.Certificate().Raw}))
	return gateway.URL + "/orders", []string{"--cert", certFile, "--key", keyFile, "--cacert", ca, "--rate", "1000", "--timeout", "1m"}
}

// withoutForeign removes everything by which gateways name callers, in any spelling.
func withoutForeign(header http.Header) {
	for name := range header {
		folded := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
		for _, prefix := range []string{"client-cert", "x-client", "x-forwarded", "x-ssl", "ssl-", "cf-", "x-amzn", "x-arr", "x-consumer"} {
			if strings.HasPrefix(folded, prefix) {
				delete(header, name)
			}
		}
	}
}

// TestProbeCommand checks what is printed, and the exit status.
func TestProbeCommand(t *testing.T) {
	address, flags := probedGateway(t, func(http.Header) {})
	out, problems, status := process(t, append([]string{"mtls", "probe", address}, flags...)...)
	for _, want := range []string{
		"The gateway names the client in X-Client-Id: billing\n", "It lets through everybody, and speaks h1.\n",
		"SPOOF", "underscores", "got through", "the API saw X_client_id: forged-", " spoofs got through (",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s\n%s", want, out, problems)
		}
	}
	if status != 1 || problems != "" {
		t.Errorf("exit status %d\n%s", status, problems)
	}

	address, flags = probedGateway(t, withoutForeign)
	out, problems, status = process(t, append([]string{"mtls", "probe", "--json", address}, flags...)...)
	var report probe.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 0 || report.Counts[probe.GotThrough] > 0 || report.Counts[probe.Stripped] == 0 {
		t.Errorf("exit status %d, %v, %v\n%s", status, err, report.Counts, problems)
	}
	for _, attempt := range report.Attempts {
		if attempt.Verdict == probe.GotThrough {
			t.Errorf("%+v", attempt)
		}
	}
}

// TestProbeCommandErrors checks what stops a probe, and the exit status.
func TestProbeCommandErrors(t *testing.T) {
	address, flags := probedGateway(t, func(http.Header) {})
	cert := strings.Join(flags[:4], " ")
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	for args, want := range map[string]string{
		"":                                          "2 no URL to probe",
		"--echo " + address:                         "2 probes nothing",
		address:                                     "2 no certificate",
		"ftp://x " + cert:                           "2 it is not a URL such as",
		"https://user:secret@x " + cert:             "2 it is not a URL such as",
		address + " --rate 0 " + cert:               "2 use 1 to 1000",
		address + " --timeout 1h " + cert:           "2 use 100ms to 1m",
		address + " --other-cert x " + cert:         "2 belong together",
		address + " --header a:b " + cert:           "2 is not the name of a header",
		address + " --cert none.pem --key none.key": "1 none.pem",
		address + " --cacert none.pem " + cert:      "1 none.pem",
		address + " " + cert:                        "1 certificate signed by unknown authority",
		elsewhere.URL + " " + cert:                  "1 the gateway answered 404",
		address + " --header X-Nobody " + strings.Join(flags, " "): "1 the API gets no header 'X-Nobody'",
		"--echo --listen nowhere:x":                                "1 name another address with --listen",
	} {
		out, problems, status := process(t, append([]string{"mtls", "probe"}, strings.Fields(args)...)...)
		code, text, _ := strings.Cut(want, " ")
		if strings.Contains(problems+out, "secret") || !strings.Contains(problems, text) || code[0] != byte('0'+status) {
			t.Errorf("probe %s: exit status %d, want %s\n%s\n%s", args, status, want, out, problems)
		}
	}
}

// TestEchoCommand checks that probe --echo answers until it is stopped.
func TestEchoCommand(t *testing.T) {
	port, release, err := freeport.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	address := "127.0.0.1:" + port
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	var out strings.Builder
	go func() {
		cmd := newCommand(strings.NewReader(""), &out, "probe", "--echo", "--listen", address)
		ended <- cmd.ExecuteContext(ctx)
	}()
	var response *http.Response
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if response, err = http.Get("http://" + address + "/a"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	var seen probe.Seen
	if err := json.NewDecoder(response.Body).Decode(&seen); err != nil || seen.Target != "/a" {
		t.Errorf("%v, %+v", err, seen)
	}
	_ = response.Body.Close()
	cancel()
	if err := <-ended; err != nil || !strings.Contains(out.String(), "http://"+address) {
		t.Errorf("%v, %q", err, &out)
	}
}
