package command

import (
	"github.com/spf13/cobra"
)

// clientsCommand is the group of commands about the clients of a realm. Most send
// requests to the admin API of a running Caddy.
func clientsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clients <command>",
		Short: "Lists and changes the clients of a running Caddy",
		Long: `
Lists the clients of a realm, and changes those of its writable source, such
as 'clients_from storage'. A change takes effect at once, without a reload.

The commands send requests to the admin API of a running Caddy.`,
		Args: cobra.NoArgs,
		RunE: missingCommand,
	}
	cmd.AddCommand(
		clientsListCommand(), clientsShowCommand(), clientsAddCommand(),
		clientsDisableCommand(), clientsEnableCommand(), clientsRemoveCommand(),
		clientsInitDBCommand(),
	)
	return cmd
}

// missingCommand makes a group of commands fail without one; otherwise, a misspelt
// command would print the help and exit with status 0.
func missingCommand(cmd *cobra.Command, _ []string) error {
	return usagef("missing command; see '%s --help'", cmd.CommandPath())
}

// realmFlags are the flags of commands about a realm of a running Caddy.
type realmFlags struct {
	admin *adminFlags
	realm string
}

func addRealmFlags(cmd *cobra.Command) *realmFlags {
	f := &realmFlags{admin: addAdminFlags(cmd)}
	cmd.Flags().StringVar(&f.realm, "realm", "default", "Name of the realm")
	_ = cmd.RegisterFlagCompletionFunc("realm", f.admin.completeRealms) // which fails without the flag
	return f
}

// clients returns the path of the clients of the realm.
func (f *realmFlags) clients() string { return "/mtls/realms/" + escapeSegment(f.realm) + "/clients" }

// client returns the path of a client.
func (f *realmFlags) client(id string) string { return f.clients() + "/" + escapeSegment(id) }
