// Package command implements the commands of `caddy mtls`.
package command

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/command/demo"
)

// Register registers the commands with Caddy. The explain command asks the Explainer
// that load returns, and check finds what is wrong.
func Register(load LoadFunc, check CheckFunc) {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "mtls",
		Usage: "<command>",
		Short: "Commands for clients that authenticate with TLS certificates",
		Long: `
Commands for the mtls app, which authenticates clients by their TLS
certificates.

See 'caddy mtls <command> --help' for details and examples, and
'caddy completion --help' for how a shell completes them.

The exit status is 0 if a command did what it says, or its answer is yes; 1 if
it failed, or its answer is no; and 2 if the command line is wrong.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args, cmd.RunE = cobra.NoArgs, missingCommand
			cmd.AddCommand(demoCommand(), inspectCommand(), explainCommand(load), clientsCommand(), realmsCommand(), whyCommand(), statusCommand(), issueCommand(), tokenCommand(), keysCommand(), versionCommand())
			cmd.AddCommand(checkCommand(check), probeCommand())
			reportErrors(cmd)
		},
	})
}

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo [--once] [--keep <folder>]",
		Short: "Demonstrates certificate authentication and access tokens on this machine",
		Long: `
Creates a CA and client certificates in a temporary folder, starts Caddy on
free ports of the loopback interface with an API behind mtls_auth and a token
issuer, and calls both as the clients. Prints each result and the curl command
to repeat it, and keeps running until Ctrl-C.

Changes nothing outside that folder: no trust store, no configuration and no
storage of another Caddy instance.

With --keep, the folder stays, with a Caddyfile that 'caddy run' starts again,
and with the settings of the examples of caddy-mtls-auth, which then run
against it. Prints the line that runs each of them.

	$ caddy mtls demo
	$ caddy mtls demo --keep demo`,
		Args: cobra.NoArgs,
	}
	once := cmd.Flags().Bool("once", false, "Exit after the demo; nonzero if a step failed")
	keep := cmd.Flags().String("keep", "", "Leave everything in this folder, and print how the examples run against it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("keep") && *keep == "" {
			return usagef("--keep names no folder; name one that is new or empty")
		}
		return demo.Run(cmd.Context(), cmd.OutOrStdout(), *once, *keep)
	}
	return cmd
}
