package version

import (
	"runtime/debug"
	"testing"
)

func TestVersionOfModules(t *testing.T) {
	info := &debug.BuildInfo{
		Main: debug.Module{Path: "caddy", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: Module, Version: "v1.2.3"},
			{Path: "replaced", Version: "v1.0.0", Replace: &debug.Module{Path: "fork", Version: "v1.0.1"}},
			{Path: "local", Version: "v2.0.0", Replace: &debug.Module{Path: "../local"}},
		},
	}
	for path, want := range map[string]string{
		Module: "v1.2.3", "caddy": "(devel)", "replaced": "v1.0.1", "local": "v2.0.0", "other": unknown,
	} {
		if got := of(info, path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if of(&debug.BuildInfo{Main: debug.Module{Path: Module}}, Module) != unknown {
		t.Error("a program without a version has one")
	}
}
