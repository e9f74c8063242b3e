package forwarded_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// guide is the document whose configurations run in the tests.
const guide = "../../docs/behind-a-proxy.md"

// frontProxy is a real proxy in front of Caddy that terminates TLS. Its section of the
// guide has two configurations: one that forwards to Caddy over plain HTTP, and one that
// forwards over TLS with a certificate of the proxy's own.
type frontProxy struct {
	section, language string
	forwarder         rig.Forwarder
	// dropsNamed is whether a caller can make the proxy drop the header, by naming it in
	// Connection. Then the caller has no certificate.
	dropsNamed bool
	// relaysConnect is whether the proxy passes CONNECT on like any other request.
	relaysConnect bool
	// protocols are those besides HTTP/1.1.
	protocols []string
	// own replaces what only the machine of the guide has.
	own []string
	// start runs the proxy with a configuration until the test ends, and returns its
	// port.
	start func(t *testing.T, f *rig.ForwardingRig, config string) string
}

var frontProxies = []frontProxy{
	{"nginx", "nginx", rig.ByNginx, false, false, nil, []string{"listen 443 ssl;", "listen 127.0.0.1:@PORT@ ssl;", "/etc/nginx/", "@DIR@/front-"}, startProgram(nginx)},
	{"HAProxy", "haproxy", rig.ByHAProxy, false, false, nil, []string{"bind :443 ", "bind 127.0.0.1:@PORT@ ", "/etc/haproxy/", "@DIR@/front-"}, startProgram(haproxy)},
	{"Apache", "apache", rig.ByNginx, true, true, nil, []string{"*:443", "127.0.0.1:@PORT@", "/etc/apache2/", "@DIR@/front-"}, startProgram(apache)},
	{"Caddy", "caddyfile", rig.ByRFC9440, false, false, []string{"h2", "h3"}, []string{
		"api.example.com {\n\ttls {", "https://api.test:@HTTPS@ {\n\tbind 127.0.0.1\n\ttls \"@DIR@/server.pem\" \"@DIR@/server.key\" {",
		"/etc/caddy/", "@DIR@/front-",
		// without it, Caddy and Go's client have a data race over the body
		"header_up -Client-Cert-Chain", "header_up -Client-Cert-Chain\n\t\trequest_buffers 1MiB",
	}, startCaddy},
}

// configs returns the two configurations of the guide, for this machine.
func (p frontProxy) configs(t *testing.T, f *rig.ForwardingRig) (plain, overTLS string) {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+p.section+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?ms)^```"+p.language+"\n(.*?)^```$").FindAllStringSubmatch(section, -1)
	if !found || len(blocks) != 2 {
		t.Fatalf("section %s of %s has %d configurations, want two", p.section, guide, len(blocks))
	}
	server := f.Leaves[0]
	f.Write("front-api.pem", append(server.PEM(), server.KeyPEM()...))
	f.Write("front-api.key", server.KeyPEM())
	f.Write("front-proxy.pem", append(f.Proxy.PEM(), f.Proxy.KeyPEM()...))
	f.Write("front-proxy.key", f.Proxy.KeyPEM())
	f.Write("front-caddy-ca.pem", f.ServerCA.PEM())
	f.Write("front-clients-ca.pem", f.CA.PEM())
	adapt := strings.NewReplacer(append(p.own,
		"https://10.0.0.5", "https://127.0.0.1:"+f.HTTPS, "http://10.0.0.5", "http://127.0.0.1:"+f.HTTP,
		"10.0.0.5:443", "127.0.0.1:"+f.HTTPS, "10.0.0.5:80", "127.0.0.1:"+f.HTTP, "api.example.com", "api.test")...)
	return adapt.Replace(blocks[0][1]), adapt.Replace(blocks[1][1])
}

// startCaddy runs a Caddy in a process of its own, with a site for each host.
func startCaddy(t *testing.T, f *rig.ForwardingRig, config string) string {
	sites := ""
	for _, host := range []string{"api.test", "auth.test", "public.test"} {
		sites += strings.ReplaceAll(config, "api.test", host) + "\n"
	}
	return rig.Node(f.Rig, t, "", sites).HTTPS
}

// program is a proxy that is installed on the machine.
type program struct {
	name      string
	arguments []string // before the configuration file
	around    string   // the rest of the configuration, with @CONFIG@
}

var (
	nginx = program{"nginx", []string{"-e", "stderr", "-c"}, `
daemon off;
master_process off;
pid @DIR@/nginx.pid;
error_log stderr warn;
events {
	worker_connections 64;
}
http {
	access_log off;
	client_body_temp_path @DIR@/nginx-body;
	proxy_temp_path @DIR@/nginx-proxy;
	fastcgi_temp_path @DIR@/nginx-fastcgi;
	uwsgi_temp_path @DIR@/nginx-uwsgi;
	scgi_temp_path @DIR@/nginx-scgi;
@CONFIG@
}
`}
	haproxy = program{"haproxy", []string{"-db", "-f"}, "global\n\tmaxconn 64\n@CONFIG@"}
	apache  = program{"apache2", []string{"-X", "-f"}, `
ServerRoot @DIR@
ServerName localhost
PidFile @DIR@/apache-@PORT@.pid
ErrorLog @DIR@/apache.log
Mutex file:@DIR@
Listen 127.0.0.1:@PORT@
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
@CONFIG@
`}
)

// startProgram returns a function that runs the program in one process.
func startProgram(p program) func(*testing.T, *rig.ForwardingRig, string) string {
	return func(t *testing.T, f *rig.ForwardingRig, config string) string {
		t.Helper()
		path := testtool.Path(t, p.name)
		// another process may take a free port before the proxy does
		for attempt := range 3 {
			port := rig.FreePort(t)
			text := strings.Replace(p.around, "@CONFIG@", config, 1)
			// Apache reads the file again after it has begun to listen
			file := f.Write(p.name+"-"+port+".conf", []byte(strings.ReplaceAll(f.Fill(text), "@PORT@", port)))
			var output bytes.Buffer
			command := exec.Command(path, append(p.arguments, file)...)
			command.Stdout, command.Stderr = &output, &output
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				_ = command.Wait()
				close(ended)
			}()
			stop := func() {
				_ = command.Process.Kill()
				<-ended
			}
			if listens(port, ended) {
				t.Cleanup(func() {
					stop()
					if t.Failed() {
						t.Logf("output of %s: %s", p.name, &output)
					}
				})
				return port
			}
			stop()
			if attempt == 2 || !strings.Contains(strings.ToLower(output.String()), "address already in use") {
				t.Fatalf("starting %s failed: %s", p.name, &output)
			}
		}
		return ""
	}
}

// listens waits until the port accepts connections or the process has ended.
func listens(port string, ended <-chan struct{}) bool {
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}
