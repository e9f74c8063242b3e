package rig

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Process is a Caddy in a process of its own, with ports of its own and the storage
// and the certificates of the test. Its rig sends requests to it.
type Process struct {
	*Rig
	Name   string
	Client *Caller  // with the certificate that it was made with
	Env    []string // added to the environment

	binary string
	config string // file
	cmd    *exec.Cmd
	exited chan struct{}
}

// Process configures a Caddy, and kills it at the end of the test. In the Caddyfile,
// @NODE@ is its name, besides the names of [Rig.Start]. [Process.Run] runs it.
func (r *Rig) Process(t *testing.T, name, binary, config string, leaf *testpki.Leaf) *Process {
	t.Helper()
	own := *r
	own.T, own.AdminOn = t, true
	own.HTTPS, own.HTTP, own.Admin = FreePort(t), FreePort(t), FreePort(t)
	p := &Process{Rig: &own, Name: name, binary: binary, Client: own.Caller(t, "h2", leaf)}
	p.Configure(config)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s logged, besides refusals:\n%s", name, p.notable())
		}
	})
	return p
}

// Configure replaces the configuration that the process is started with.
func (p *Process) Configure(config string) {
	p.T.Helper()
	p.config = p.Write(p.Name+".caddyfile", []byte(p.Fill(strings.ReplaceAll(config, "@NODE@", p.Name))))
}

// Run starts the process and waits until it serves auth.test.
func (p *Process) Run() {
	p.T.Helper()
	p.Start()
	Await(p.Rig, p.T, p.Name+" serves", func() bool {
		_, err := p.Client.Try(http.MethodGet, "https://auth.test/.well-known/openid-configuration")
		return err == nil || p.Exited()
	})
	if p.Exited() {
		p.T.Fatalf("%s has exited", p.Name)
	}
}

// Start starts the process.
func (p *Process) Start() {
	p.T.Helper()
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		p.T.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(p.binary, "run", "--config", p.config, "--adapter", "caddyfile")
	p.cmd.Env = append(os.Environ(), "HOME="+p.Dir, "XDG_DATA_HOME="+p.Dir, "XDG_CONFIG_HOME="+p.Dir)
	p.cmd.Env = append(p.cmd.Env, p.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		p.T.Fatal(err)
	}
	exited := make(chan struct{})
	p.exited = exited
	go func() { _ = p.cmd.Wait(); close(exited) }()
}

// PID returns the ID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited reports whether the process is not running.
func (p *Process) Exited() bool {
	if p.exited == nil {
		return true
	}
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Kill ends the process as abruptly as a power failure would.
func (p *Process) Kill() {
	if p.exited == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.Client.Close()
}

// Reload loads the configuration again.
func (p *Process) Reload() ([]byte, error) {
	command := exec.Command(p.binary, "reload", "--force", "--config", p.config, "--adapter", "caddyfile", "--address", "127.0.0.1:"+p.Admin)
	command.Env = append(os.Environ(), p.Env...)
	return command.CombinedOutput()
}

// Ask sends a request to the admin endpoint of the process. A GET that a reload may have
// interrupted is sent again.
func (p *Process) Ask(method, path, body string) (status int, answer string, err error) {
	for range 5 {
		status, answer, err = p.ask(method, path, body)
		if err == nil || method != http.MethodGet {
			break
		}
	}
	return status, answer, err
}

func (p *Process) ask(method, path, body string) (status int, answer string, err error) {
	request, err := http.NewRequest(method, "http://127.0.0.1:"+p.Admin+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if request.Header.Set("Content-Type", "application/json"); method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := (&http.Client{Transport: AdminClient.Transport, Timeout: Patience}).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// Logged returns what the process has logged so far.
func (p *Process) Logged() string {
	text, _ := os.ReadFile(p.log())
	return string(text)
}

// notable returns the last lines of the log that are not about refused clients, of which
// there can be thousands.
func (p *Process) notable() string {
	lines := slices.DeleteFunc(strings.Split(p.Logged(), "\n"), func(line string) bool {
		return strings.Contains(line, `"client refused"`) || strings.Contains(line, `"refusal repeated"`)
	})
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

func (p *Process) log() string { return filepath.Join(p.Dir, p.Name+".log") }
