package deploy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// composition is what the tests read of compose.yaml.
type composition struct {
	Services map[string]struct {
		Image     string
		Command   []string
		Ports     []string
		Volumes   []string
		Secrets   []string
		Networks  []string
		DependsOn map[string]struct{ Condition string } `yaml:"depends_on"`
	}
	Secrets  map[string]struct{ File string }
	Volumes  map[string]any
	Networks map[string]struct{ Internal bool }
}

func readComposition(t *testing.T) composition {
	t.Helper()
	var c composition
	if err := yaml.Unmarshal([]byte(read(t, "compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestComposition checks that compose.yaml declares what its services use, that files
// exist, that only Caddy reaches the API and is reached from outside, and that git and
// docker leave the files of secrets alone.
func TestComposition(t *testing.T) {
	c := readComposition(t)
	members := make(map[string][]string) // of each network
	for name, service := range c.Services {
		for _, network := range service.Networks {
			members[network] = append(members[network], name)
			if _, declared := c.Networks[network]; !declared {
				t.Errorf("%s: the network %s is not declared", name, network)
			}
		}
		for _, secret := range service.Secrets {
			if _, declared := c.Secrets[secret]; !declared {
				t.Errorf("%s: the secret %s is not declared", name, secret)
			}
		}
		for other := range service.DependsOn {
			if _, declared := c.Services[other]; !declared {
				t.Errorf("%s: there is no service %s", name, other)
			}
		}
		for _, volume := range service.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			if _, declared := c.Volumes[from]; !declared && !fileExists(from) {
				t.Errorf("%s: there is no %s", name, from)
			}
		}
		if name != "caddy" && len(service.Ports) > 0 {
			t.Errorf("%s has ports %q", name, service.Ports)
		}
	}
	if len(c.Services) == 0 || !c.Networks["api"].Internal || !c.Networks["database"].Internal {
		t.Errorf("the networks are %+v", c.Networks)
	}
	slices.Sort(members["api"])
	if !slices.Equal(members["api"], []string{"api", "caddy"}) || !slices.Equal(members["outside"], []string{"caddy"}) {
		t.Errorf("the networks have %v", members)
	}
	// or the secret would be committed, and Go would take the version for one with changes
	for name, secret := range c.Secrets {
		for _, ignore := range []string{".gitignore", ".dockerignore"} {
			line := regexp.MustCompile(`(?m)^/?` + regexp.QuoteMeta(strings.TrimPrefix(secret.File, "./")) + `$`)
			if !line.MatchString(read(t, ignore)) {
				t.Errorf("%s does not have the file of the secret %s", ignore, name)
			}
		}
	}
	for _, path := range paths(t, read(t, "contrib/compose/Caddyfile")) {
		if !strings.HasPrefix(path, "/data/") {
			t.Errorf("the Caddyfile reads %s", path)
		}
	}
}

// TestComposeSecretsStayHere checks that neither a commit nor the context of the image
// has the files with secrets.
func TestComposeSecretsStayHere(t *testing.T) {
	for name, secret := range readComposition(t).Secrets {
		file := strings.TrimPrefix(secret.File, "./")
		for list, line := range map[string]string{".gitignore": "/" + file, ".dockerignore": file} {
			if !slices.Contains(strings.Split(read(t, list), "\n"), line) {
				t.Errorf("%s: %s lacks %s", name, list, line)
			}
		}
	}
}

// fileExists reports whether the repository has a file or a folder.
func fileExists(name string) bool {
	found, _ := filepath.Glob(filepath.Join("../..", name))
	return len(found) == 1
}

// TestComposeCommands runs the commands of compose.yaml and those that docs/compose.md
// tells people to run, without containers and with a real PostgreSQL.
func TestComposeCommands(t *testing.T) {
	curl := testtool.Path(t, "curl")
	c := readComposition(t)
	server := testpg.Start(t)
	dsn := server.Database(t)
	r := rig.New(t)
	r.Secrets = append(r.Secrets, testpg.Password)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello", r.Header.Get("X-Client-ID"))
	}))
	t.Cleanup(api.Close)

	secret := r.Write("postgres-password", []byte(testpg.Password+"\n"))
	r.Admin = rig.FreePort(t)
	https, admin := rig.FreePort(t), "127.0.0.1:"+r.Admin
	database := strings.Replace(dsn, testpg.Password, "{file."+secret+"}", 1)
	here := strings.NewReplacer("postgres://caddy:{file./run/secrets/postgres-password}@postgres/caddy", database,
		"api:8080", api.Listener.Addr().String(), "8443", https, "8080", rig.FreePort(t), "localhost:2019", admin,
		"\tpersist_config off\n", "\tpersist_config off\n\tdefault_bind 127.0.0.1\n\tstorage file_system "+filepath.Join(r.Dir, "data/caddy")+"\n",
		"/data/", filepath.Join(r.Dir, "data")+"/")
	config := r.Write("Caddyfile", []byte(here.Replace(read(t, "contrib/compose/Caddyfile"))))
	inside := func(service string) []string {
		args := slices.Clone(c.Services[service].Command[1:])
		for i := range args {
			args[i] = strings.Replace(here.Replace(args[i]), "/etc/caddy/Caddyfile", config, 1)
		}
		return args
	}
	if out, err := rig.Command(t, inside("init-db")...).CombinedOutput(); err != nil {
		t.Fatalf("init-db: %v\n%s", err, out)
	}
	startCaddy(t, inside("caddy")...)
	rig.Await(r, t, "the realm is in force", func() bool {
		answer, err := http.Get("http://" + admin + "/mtls/realms/default")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})

	said := make(map[string]string)
	for _, match := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(read(t, "docs/compose.md"), -1) {
		for line := range strings.Lines(match[1]) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "openssl") || strings.HasPrefix(line, "docker compose up") {
				continue // the database and Caddy run
			}
			command := strings.NewReplacer("docker compose exec -T caddy ", "", "docker compose exec caddy ", "", "docker compose cp caddy:/data/caddy/", "cp "+filepath.Join(r.Dir, "data/caddy")+"/",
				"/etc/caddy/Caddyfile", config, "curl ", curl+" --silent --show-error ", "8443", https).Replace(line)
			said[line] = rig.MustShell(r, t, command)
			if strings.HasSuffix(line, " mtls why") {
				// a refusal is remembered a moment after it is sent
				rig.Await(r, t, "the refusal is remembered", func() bool {
					said[line] = rig.MustShell(r, t, command)
					return strings.Contains(said[line], "certificate_missing")
				})
			}
		}
	}
	if got := said["curl --cacert root.crt --cert billing.pem https://localhost:8443/"]; got != "hello billing\n" {
		t.Errorf("the client gets %q", got)
	}
	refused := said["curl --cacert root.crt https://localhost:8443/"]
	if !strings.Contains(refused, "certificate_missing") || !strings.Contains(said["docker compose exec caddy caddy mtls why"], "certificate_missing") {
		t.Errorf("without a certificate: %q, and why says %q", refused, said["docker compose exec caddy caddy mtls why"])
	}
}
