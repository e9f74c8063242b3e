package deploy_test

import (
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// variants are the folders of contrib/kubernetes that can be applied.
var variants = []string{"base", "postgresql"}

// object is a manifest, with what the tests read of it.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name, Namespace string
	} `yaml:"metadata"`
	Data map[string]string `yaml:"data"`
	Spec struct {
		Selector    yaml.Node `yaml:"selector"`
		Template    template  `yaml:"template"`
		Ports       []port    `yaml:"ports"`
		SecretName  string    `yaml:"secretName"`
		PodSelector selector  `yaml:"podSelector"`
		Ingress     []ingress `yaml:"ingress"`
	} `yaml:"spec"`
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type port struct {
	Name          string `yaml:"name"`
	ContainerPort int    `yaml:"containerPort"`
	TargetPort    string `yaml:"targetPort"`
	Port          string `yaml:"port"`
}

type ingress struct {
	From []struct {
		PodSelector *selector `yaml:"podSelector"`
	}
	Ports []port
}

type template struct {
	Metadata struct{ Labels map[string]string }
	Spec     struct {
		Containers []container
		Volumes    []volume
	}
}

type container struct {
	Name         string
	Args         []string
	Ports        []port
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		SubPath   string `yaml:"subPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
	ReadinessProbe struct {
		HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	} `yaml:"readinessProbe"`
}

type volume struct {
	Name                  string
	ConfigMap             struct{ Name string } `yaml:"configMap"`
	Secret                *secretVolume
	PersistentVolumeClaim struct {
		ClaimName string `yaml:"claimName"`
	} `yaml:"persistentVolumeClaim"`
	EmptyDir *struct{} `yaml:"emptyDir"`
}

type secretVolume struct {
	SecretName string `yaml:"secretName"`
	Items      []struct{ Key, Path string }
}

// manifests returns what kustomize makes of a folder of contrib/kubernetes.
func manifests(t *testing.T, folder string) []object {
	t.Helper()
	command := exec.Command(testtool.Path(t, "kustomize"), "build", "../../contrib/kubernetes/"+folder)
	out, err := command.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		t.Fatalf("kustomize build: %s", failed.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	var all []object
	for decoder := yaml.NewDecoder(strings.NewReader(string(out))); ; {
		var o object
		if err := decoder.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("manifest %d: %v", len(all)+1, err)
		}
		if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
			t.Errorf("manifest %d lacks apiVersion, kind or name", len(all)+1)
		}
		if o.Metadata.Namespace != "gateway" && o.Kind != "Namespace" {
			t.Errorf("%s %s is in the namespace %q", o.Kind, o.Metadata.Name, o.Metadata.Namespace)
		}
		all = append(all, o)
	}
}

// find returns the manifest of a kind and a name.
func find(t *testing.T, all []object, kind, name string) object {
	t.Helper()
	i := slices.IndexFunc(all, func(o object) bool { return o.Kind == kind && o.Metadata.Name == name })
	if i < 0 {
		t.Fatalf("there is no %s %s", kind, name)
	}
	return all[i]
}

// labels returns the labels that a selector asks for, which a Service writes without
// matchLabels.
func labels(t *testing.T, node yaml.Node) map[string]string {
	t.Helper()
	var long selector
	if err := node.Decode(&long); err == nil && len(long.MatchLabels) > 0 {
		return long.MatchLabels
	}
	var short map[string]string
	if err := node.Decode(&short); err != nil {
		t.Fatal(err)
	}
	return short
}

// TestManifestsFitTogether checks that selectors select pods, ports exist, and the API
// is open to Caddy alone.
func TestManifestsFitTogether(t *testing.T) {
	for _, folder := range variants {
		t.Run(folder, func(t *testing.T) {
			all := manifests(t, folder)
			pods := make(map[string]template)
			for _, o := range all {
				if o.Kind == "Deployment" {
					pods[o.Metadata.Name] = o.Spec.Template
				}
			}
			selected := func(what object, want map[string]string) template {
				t.Helper()
				pod, known := pods[what.Metadata.Name]
				if !known || len(want) == 0 || !maps.Equal(pod.Metadata.Labels, want) {
					t.Errorf("%s %s selects %v, its pods have %v", what.Kind, what.Metadata.Name, want, pod.Metadata.Labels)
				}
				return pod
			}
			hasPort := func(what object, pod template, name string) {
				t.Helper()
				if len(pod.Spec.Containers) != 1 || !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p port) bool { return p.Name == name }) {
					t.Errorf("%s %s: the pods have no port %q", what.Kind, what.Metadata.Name, name)
				}
			}
			for _, o := range all {
				switch o.Kind {
				case "Deployment", "PodDisruptionBudget":
					selected(o, labels(t, o.Spec.Selector))
				case "Service":
					pod := selected(o, labels(t, o.Spec.Selector))
					for _, p := range o.Spec.Ports {
						hasPort(o, pod, p.TargetPort)
					}
				case "NetworkPolicy":
					pod := selected(o, o.Spec.PodSelector.MatchLabels)
					for _, rule := range o.Spec.Ingress {
						for _, p := range rule.Ports {
							hasPort(o, pod, p.Port)
						}
					}
				}
			}
			api := find(t, all, "NetworkPolicy", "api").Spec.Ingress
			if len(api) != 1 || len(api[0].From) != 1 || api[0].From[0].PodSelector == nil || !maps.Equal(api[0].From[0].PodSelector.MatchLabels, pods["caddy"].Metadata.Labels) {
				t.Errorf("the API is open to %+v", api)
			}
		})
	}
}
