// Package command holds the commands of `caddy mtls`: inspect, explain and demo.
package command

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// Register registers the commands with Caddy. The explain command asks the
// Explainer that load returns.
func Register(load LoadFunc) {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "mtls",
		Usage: "<command>",
		Short: "Works with clients that authenticate by TLS certificate",
		Long: `
Commands for the mtls app, which authenticates machines by their TLS client
certificate. See 'caddy mtls <command> --help'.`,
		CobraFunc: func(cmd *cobra.Command) { addCommands(cmd, load) },
	})
}

func addCommands(cmd *cobra.Command, load LoadFunc) {
	// without these a misspelt command would print help and succeed
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return fmt.Errorf("name a command; see '%s --help'", cmd.CommandPath())
	}
	cmd.AddCommand(demoCommand(), inspectCommand(), explainCommand(load))
}

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo [--once]",
		Short: "Shows client certificates becoming identities and tokens, on this machine",
		Long: `
Makes a throwaway CA and client certificates in a temporary folder, starts this
Caddy on free ports of the loopback interface, with an API behind mtls_auth and
a token issuer, and then acts as the clients. It prints what happened and the
curl commands to repeat it, and stays up until Ctrl-C.

Nothing outside the temporary folder is touched: no trust store, no
configuration, no storage of another Caddy.`,
		Args: cobra.NoArgs,
	}
	once := cmd.Flags().Bool("once", false, "Exit when the story is told, with a failure if any step did not go as it should")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
		if err := runDemo(cmd.Context(), cmd.OutOrStdout(), *once); err != nil {
			return caddy.ExitCodeFailedStartup, err
		}
		return caddy.ExitCodeSuccess, nil
	})
	return cmd
}
