// Package version knows which versions the running Caddy is made of.
package version

import "runtime/debug"

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
	found := ""
	if info.Main.Path == path {
		found = info.Main.Version
	}
	for _, dependency := range info.Deps {
		if dependency.Path != path {
			continue
		}
		found = dependency.Version
		if dependency.Replace != nil && dependency.Replace.Version != "" {
			found = dependency.Replace.Version
		}
	}
	if found == "" {
		return unknown
	}
	return found
}
