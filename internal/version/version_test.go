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

func TestCommitOfThePlugin(t *testing.T) {
	const (
		hash   = "0123456789abcdef0123456789abcdef01234567"
		other  = "ffffffffffffffffffffffffffffffffffffffff"
		pseudo = "v0.1.1-0.20261129213529-0123456789ab"
	)
	stamped := func(revision, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
	}
	dependency := func(version string, replace *debug.Module) *debug.BuildInfo {
		return &debug.BuildInfo{
			Main:     debug.Module{Path: "caddy", Version: "v0.0.0-20250101000000-ffffffffffff"},
			Deps:     []*debug.Module{{Path: "other", Version: "v1.0.1-0.20250101000000-eeeeeeeeeeee"}, {Path: Module, Version: version, Replace: replace}},
			Settings: stamped(other, "true"),
		}
	}
	for name, c := range map[string]struct {
		info     *debug.BuildInfo
		want     string
		modified bool
	}{
		"a clone":                     {&debug.BuildInfo{Main: debug.Module{Path: Module, Version: "v1.2.3"}, Settings: stamped(hash, "false")}, hash, false},
		"a clone with changes":        {&debug.BuildInfo{Main: debug.Module{Path: Module, Version: pseudo + "+dirty"}, Settings: stamped(hash, "true")}, hash, true},
		"go install of a commit":      {&debug.BuildInfo{Main: debug.Module{Path: Module, Version: pseudo}}, "0123456789ab", false},
		"no repository":               {&debug.BuildInfo{Main: debug.Module{Path: Module, Version: "(devel)"}}, unknown, false},
		"xcaddy, a commit":            {dependency(pseudo, nil), "0123456789ab", false},
		"xcaddy, before any tag":      {dependency("v0.0.0-20261129213529-0123456789ab", nil), "0123456789ab", false},
		"xcaddy, after a pre-release": {dependency("v1.0.0-rc.1.0.20261129213529-0123456789ab", nil), "0123456789ab", false},
		"xcaddy, a tag":               {dependency("v1.2.3", nil), unknown, false},
		"xcaddy, a tag like a commit": {dependency("v1.2.3-20261129213529-0123456789ab", nil), unknown, false},
		"xcaddy, a folder":            {dependency(pseudo, &debug.Module{Path: "../plugin"}), unknown, false},
		"xcaddy, a fork":              {dependency("v1.2.3", &debug.Module{Path: "fork", Version: pseudo}), "0123456789ab", false},
		"a program without it":        {&debug.BuildInfo{Main: debug.Module{Path: "caddy"}, Settings: stamped(other, "false")}, unknown, false},
	} {
		if got, modified := commit(c.info); got != c.want || modified != c.modified {
			t.Errorf("%s: %s, modified %v; want %s, %v", name, got, modified, c.want, c.modified)
		}
	}
}
