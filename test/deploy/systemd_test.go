package deploy_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// packagedUnit is what matters here of the unit that Caddy's packages install.
const packagedUnit = `[Unit]
Description=Caddy
After=network.target network-online.target
Requires=network-online.target

[Service]
Type=notify
User=root
ExecStart=/usr/bin/caddy run --environ --config /etc/caddy/Caddyfile
ExecReload=/usr/bin/caddy reload --config /etc/caddy/Caddyfile --force
TimeoutStopSec=5s
LimitNOFILE=1048576
PrivateTmp=true
ProtectSystem=full
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE

[Install]
WantedBy=multi-user.target
`

// writeUnit writes the unit of the packages with our drop-ins to a folder.
func writeUnit(t *testing.T, program string, dropIns ...string) (file string) {
	t.Helper()
	dir := t.TempDir()
	// only a program that is installed passes
	here := strings.NewReplacer("/usr/bin/caddy", program)
	for _, name := range dropIns {
		testtool.WriteTemp(t, dir, "caddy.service.d/"+name, []byte(here.Replace(read(t, "contrib/systemd/"+name))))
	}
	return testtool.WriteTemp(t, dir, "caddy.service", []byte(here.Replace(packagedUnit)))
}

// TestSystemdUnit checks that systemd understands the drop-ins, and that Caddy is less
// exposed with them.
func TestSystemdUnit(t *testing.T) {
	analyze, program := testtool.Path(t, "systemd-analyze"), testtool.Path(t, "true")
	unit := writeUnit(t, program, "mtls.conf", "credentials.conf")
	if out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	exposure := func(unit string) float64 {
		t.Helper()
		out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
		match := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if err != nil || match == nil {
			t.Fatalf("systemd-analyze security: %v\n%s", err, out)
		}
		level, _ := strconv.ParseFloat(string(match[1]), 64)
		return level
	}
	hardened, plain := exposure(unit), exposure(writeUnit(t, program))
	t.Logf("exposure %.1f with the drop-in, %.1f without", hardened, plain)
	if hardened > 2.5 || hardened > plain/2 {
		t.Errorf("the exposure is %.1f with the drop-in, %.1f without", hardened, plain)
	}
	broken := filepath.Dir(unit) + "/caddy.service.d/zz.conf"
	testtool.WriteTemp(t, filepath.Dir(broken), "zz.conf", []byte("[Service]\nProtectSytem=strict\n"))
	if out, _ := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); !strings.Contains(string(out), "ProtectSytem") {
		t.Errorf("a misspelt option is not found: %s", out)
	}
}

// TestSystemdCredentials checks that the documented placeholders name files that
// systemd hands over.
func TestSystemdCredentials(t *testing.T) {
	text := read(t, "contrib/systemd/credentials.conf")
	loaded := make(map[string]bool)
	for _, match := range regexp.MustCompile(`(?m)^LoadCredential=([^:]+):`).FindAllStringSubmatch(text, -1) {
		loaded[match[1]] = true
	}
	for _, name := range []string{"contrib/systemd/credentials.conf", "docs/systemd.md"} {
		used := regexp.MustCompile(`\{file\./run/credentials/caddy\.service/([^}]+)\}`).FindAllStringSubmatch(read(t, name), -1)
		if len(used) == 0 {
			t.Errorf("%s shows no credential", name)
		}
		for _, match := range used {
			if !loaded[match[1]] {
				t.Errorf("%s uses the credential %q, which is not loaded", name, match[1])
			}
		}
	}
}
