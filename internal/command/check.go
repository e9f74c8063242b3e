package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/check"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// CheckFunc returns what is wrong in the apps of a configuration and its admin endpoint.
// The context is that of a configuration without apps; loadable are those that it loads
// when something asks for them.
type CheckFunc func(ctx caddy.Context, loadable, apps caddy.ModuleMap, admin json.RawMessage) []check.Finding

// errFindings makes the process exit with status 1 after the findings have been printed.
var errFindings = errors.New("the configuration has errors")

func checkCommand(run CheckFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [--config <file>] [--strict]",
		Short: "Finds what is wrong in a configuration, or will be",
		Long: `
Finds everything in a configuration that the load of the mtls app refuses
or warns about, all of it at once, and what will not last or cannot work:
weak pins, certificates that expire within 90 days, sites that never ask
for a certificate, rules that match nobody, realms that nothing uses,
clients that no directive admits, handlers and matchers that leave paths
open.

Only the realms and the directives of the plugin are checked; 'caddy
validate' checks the rest. Nothing is started, and neither the network nor
storage is used. What would need them is left out, with a note.

The exit status is 1 if there is an error, and with --strict also if there is a
warning.

	$ caddy mtls check --config Caddyfile
	$ caddy mtls check --config Caddyfile --strict --json`,
		Args: cobra.NoArgs,
	}
	var file, adapter string
	cmd.Flags().StringVarP(&file, "config", "c", "", "Configuration file (default: Caddyfile in the current directory)")
	cmd.Flags().StringVarP(&adapter, "adapter", "a", "", "Name of the config adapter to apply")
	strict := cmd.Flags().Bool("strict", false, "Exit with 1 for warnings too")
	asJSON := addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list, err := checkFile(file, adapter, run)
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), map[string]any{
				"findings": list, "errors": check.Count(list, check.Error), "warnings": check.Count(list, check.Warning), "notes": check.Count(list, check.Note),
			})
		} else {
			err = printFindings(cmd.OutOrStdout(), list)
		}
		if err == nil && (check.Count(list, check.Error) > 0 || *strict && check.Count(list, check.Warning) > 0) {
			cmd.SilenceErrors = true
			return errFindings
		}
		return err
	}
	return cmd
}

// checkFile returns what is wrong in a configuration file. The error is that of a file
// that cannot be read.
func checkFile(file, adapter string, run CheckFunc) ([]check.Finding, error) {
	file, err := configOrDefault(file)
	if err != nil {
		return nil, err
	}
	whole, err := readConfig(file, adapter)
	if err != nil {
		if missing := unreadable(file); missing != nil {
			return nil, missing
		}
		findings := new(check.Findings)
		findings.AddError(file, err)
		return findings.Sorted(), nil
	}
	// without the storage of the configuration, which may be a server
	config := &caddy.Config{AppsRaw: make(caddy.ModuleMap), Logging: quietly()}
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		return nil, err
	}
	return run(ctx, config.AppsRaw, whole.Apps, whole.Admin), nil
}

// printFindings prints the findings, and how many there are.
func printFindings(out io.Writer, list []check.Finding) error {
	for _, f := range list {
		fmt.Fprintf(out, "%-7s  %s  %s\n", f.Severity, f.Code, source.Text(f.Place, maxClientID))
		for _, text := range []string{f.Sentence, f.Remedy} {
			if text != "" {
				fmt.Fprintf(out, "  %s\n", strings.ReplaceAll(wrapped(source.Text(text, maxShownText)), "\n", "\n  "))
			}
		}
		fmt.Fprintln(out)
	}
	_, err := fmt.Fprintf(out, "Errors: %d, warnings: %d, notes: %d\n", check.Count(list, check.Error), check.Count(list, check.Warning), check.Count(list, check.Note))
	return err
}
