package deploy_test

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// mount is a volume in a container.
type mount struct {
	path     string
	writable bool
	files    map[string]string // by name; the content, if a manifest has it
}

// has reports whether the mount has a file, or is the folder itself.
func (m mount) has(name string) bool {
	if m.writable {
		return name == m.path || path.Dir(name) == m.path
	}
	_, found := m.files[path.Base(name)]
	return name == m.path || found && path.Dir(name) == m.path
}

// mountsOf returns what is mounted into the only container of a pod.
func mountsOf(t *testing.T, all []object, pod template) []mount {
	t.Helper()
	volumes := pod.Spec.Volumes
	var mounts []mount
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		i := slices.IndexFunc(volumes, func(v volume) bool { return v.Name == m.Name })
		if i < 0 {
			t.Fatalf("there is no volume %s", m.Name)
		}
		if m.SubPath != "" {
			t.Errorf("volume %s is mounted by subPath, so it never changes", m.Name)
		}
		this := mount{path: m.MountPath}
		switch v := volumes[i]; {
		case v.ConfigMap.Name != "":
			this.files = find(t, all, "ConfigMap", v.ConfigMap.Name).Data
		case v.Secret != nil:
			this.files = filesOfSecret(t, all, v.Secret)
		case v.PersistentVolumeClaim.ClaimName != "":
			find(t, all, "PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName)
			this.writable = true
		case v.EmptyDir != nil:
			this.writable = true
		default:
			t.Errorf("volume %s is of a kind that this test does not know", v.Name)
		}
		if m.ReadOnly == this.writable {
			t.Errorf("mount %s: read only is %t", m.MountPath, m.ReadOnly)
		}
		mounts = append(mounts, this)
		volumes = slices.Delete(slices.Clone(volumes), i, i+1)
	}
	for _, v := range volumes {
		t.Errorf("volume %s is not mounted", v.Name)
	}
	return mounts
}

// filesOfSecret returns the files of a secret, which a Certificate of cert-manager
// makes, or the operator.
func filesOfSecret(t *testing.T, all []object, s *secretVolume) map[string]string {
	t.Helper()
	if s.SecretName == "postgres" {
		return map[string]string{"dsn": ""} // the comment of the kustomization says how to create it
	}
	if !slices.ContainsFunc(all, func(o object) bool { return o.Kind == "Certificate" && o.Spec.SecretName == s.SecretName }) {
		t.Errorf("nothing makes the secret %s", s.SecretName)
	}
	files := make(map[string]string)
	for _, item := range s.Items {
		if !slices.Contains([]string{"tls.crt", "tls.key", "ca.crt"}, item.Key) {
			t.Errorf("cert-manager writes no %s", item.Key)
		}
		files[item.Path] = ""
	}
	if len(files) == 0 {
		t.Errorf("the whole secret %s is mounted, with keys that nobody needs", s.SecretName)
	}
	return files
}

// TestMountsAreWhatCaddyReads checks that each file that the Caddyfile names is
// mounted, and that Caddy reads all that is mounted.
func TestMountsAreWhatCaddyReads(t *testing.T) {
	for _, folder := range variants {
		t.Run(folder, func(t *testing.T) {
			all := manifests(t, folder)
			pod := find(t, all, "Deployment", "caddy").Spec.Template
			mounts := mountsOf(t, all, pod)
			config := pod.Spec.Containers[0].Args[3]
			i := slices.IndexFunc(mounts, func(m mount) bool { return m.path == path.Dir(config) })
			if i < 0 {
				t.Fatalf("%s is not mounted", config)
			}
			read := append(paths(t, mounts[i].files[path.Base(config)]), config)
			for _, name := range read {
				if !slices.ContainsFunc(mounts, func(m mount) bool { return m.has(name) }) {
					t.Errorf("%s is read, but nothing is mounted there", name)
				}
			}
			for _, m := range mounts {
				if m.writable && !slices.ContainsFunc(read, m.has) {
					t.Errorf("%s is mounted, but not used", m.path)
				}
				for file := range m.files {
					if name := path.Join(m.path, file); !slices.Contains(read, name) && !slices.Contains(read, m.path) {
						t.Errorf("%s is mounted, but not read", name)
					}
				}
			}
		})
	}
}

// adapted returns the JSON of a Caddyfile.
func adapted(t *testing.T, caddyfile string) []byte {
	t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

var absolutePath = regexp.MustCompile(`^(?:\{file\.)?(/(?:etc|data|var|run)\b[^}]*)\}?$`)

// paths returns the absolute paths in the configuration that a Caddyfile says.
func paths(t *testing.T, caddyfile string) []string {
	t.Helper()
	var found []string
	var walk func(any)
	walk = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			for _, member := range value {
				walk(member)
			}
		case []any:
			for _, element := range value {
				walk(element)
			}
		case string:
			if match := absolutePath.FindStringSubmatch(value); match != nil {
				found = append(found, match[1])
			}
		}
	}
	var config any
	if err := json.Unmarshal(adapted(t, caddyfile), &config); err != nil {
		t.Fatal(err)
	}
	walk(config)
	return found
}
