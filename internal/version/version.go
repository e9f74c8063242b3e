// Package version knows which versions the running Caddy is made of.
package version

import (
	"regexp"
	"runtime/debug"
)

// Module is the path of the plugin's module.
const Module = "github.com/caddymtls/caddy-mtls-auth"

const unknown = "unknown"

// Plugin returns the version of the plugin, "unknown" if the program does not say.
func Plugin() string { return Of(Module) }

// Of returns the version of a module that the program is made of, "unknown" if the
// program does not say.
func Of(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	return of(info, path)
}

func of(info *debug.BuildInfo, path string) string {
	if found := find(info, path); found != nil && found.Version != "" {
		return found.Version
	}
	return unknown
}

// find returns a module that the program is made of, or what replaces it. A folder that
// replaces it has the version that it replaces, because it has none itself.
func find(info *debug.BuildInfo, path string) *debug.Module {
	if info.Main.Path == path {
		return &info.Main
	}
	for _, dependency := range info.Deps {
		if dependency.Path != path {
			continue
		}
		if dependency.Replace != nil && dependency.Replace.Version != "" {
			return dependency.Replace
		}
		return dependency
	}
	return nil
}

// Commit returns the commit of the plugin, "unknown" if the program does not say, and
// whether the files differed from it.
func Commit() (revision string, modified bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown, false
	}
	return commit(info)
}

// pseudoVersion matches the version of a commit without a tag, which ends in the first
// twelve digits of its hash.
var pseudoVersion = regexp.MustCompile(`^v[0-9]+\.(?:0\.0-|[0-9]+\.[0-9]+-(?:[^+]*\.)?0\.)[0-9]{14}-([0-9a-f]{12})(?:\+.*)?$`)

func commit(info *debug.BuildInfo) (revision string, modified bool) {
	if info.Main.Path == Module {
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				revision = setting.Value
			case "vcs.modified":
				modified = setting.Value == "true"
			}
		}
		if revision != "" {
			return revision, modified
		}
	}
	// The settings of another main module, such as that of xcaddy, are about its own
	// repository. A folder that replaces the plugin may be at any commit.
	plugin := find(info, Module)
	if plugin == nil || plugin.Replace != nil {
		return unknown, false
	}
	if match := pseudoVersion.FindStringSubmatch(plugin.Version); match != nil {
		return match[1], false
	}
	return unknown, false
}
