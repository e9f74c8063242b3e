package command

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// clientFlags are the flags of commands about one client.
type clientFlags struct {
	*realmFlags
	source string
}

func addClientFlags(cmd *cobra.Command) *clientFlags {
	f := &clientFlags{realmFlags: addRealmFlags(cmd)}
	cmd.ValidArgsFunction = completeArgs(f.completeClients)
	cmd.Flags().StringVar(&f.source, "source", "", "Source of the client, if several have one with this ID")
	return f
}

// path returns the path of the client with its query.
func (f *clientFlags) path(id string) string {
	if f.source == "" {
		return f.client(id)
	}
	return f.client(id) + "?" + url.Values{"source": {f.source}}.Encode()
}

func clientsShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show <client_id>",
		Short: "Prints the record of a client",
		Long: `
Prints the record of a client as JSON, which 'clients add --file' reads.
Instead of secrets in a jwks_uri, it has "…".

If the record is not in force, because another source has its ID or one of its
credentials, standard error says so.

	$ caddy mtls clients show sensor-7`,
		Args: cobra.ExactArgs(1),
	}
	f := addClientFlags(cmd)
	addJSONFlag(cmd) // the output is JSON without it, too
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		answer, err := f.admin.ask(http.MethodGet, f.path(args[0]), nil, nil)
		if err != nil {
			return err
		}
		if holder := answer.header.Get("Mtls-Waits-For"); holder != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "This record is not in force; its ID or a credential is that of client '%s'\n", source.Text(holder, maxClientID))
		}
		return printRecord(cmd.OutOrStdout(), answer.body)
	}
	return cmd
}

func clientsDisableCommand() *cobra.Command {
	return switchCommand("disable", "Refuses a client from now on", `
Sets "disabled" in the record of a client. Its requests are refused at once,
also on open connections, and its tokens end.`, `{"disabled":true}`, "disabled")
}

func clientsEnableCommand() *cobra.Command {
	return switchCommand("enable", "Admits a disabled client again", `
Removes "disabled" from the record of a client.`, `{"disabled":null}`, "enabled")
}

// switchCommand returns a command that applies a merge patch to a client. It needs no
// If-Match, because the patch undoes no other change.
func switchCommand(word, short, long, patch, done string) *cobra.Command {
	cmd := &cobra.Command{Use: word + " <client_id>", Short: short, Long: long + fmt.Sprintf(`

With --json, prints the record that the client has now.

	$ caddy mtls clients %s sensor-7`, word), Args: cobra.ExactArgs(1)}
	f := addClientFlags(cmd)
	asJSON := addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		header := http.Header{"Content-Type": {"application/merge-patch+json"}}
		answer, err := f.admin.ask(http.MethodPatch, f.path(args[0]), header, []byte(patch))
		if err != nil {
			return err
		}
		if *asJSON {
			return printRecord(cmd.OutOrStdout(), answer.body)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "client '%s' is %s\n", args[0], done)
		return err
	}
	return cmd
}

func clientsRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove <client_id>",
		Short: "Removes a client, and prints the record it had",
		Long: `
Removes a client without asking. Its requests are refused at once, also on open
connections, and its tokens end. Prints the record that the client had, which
'clients add --file' reads.

	$ caddy mtls clients remove sensor-7 > sensor-7.json`,
		Args: cobra.ExactArgs(1),
	}
	f := addClientFlags(cmd)
	addJSONFlag(cmd) // the output is JSON without it, too
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		answer, err := f.admin.ask(http.MethodDelete, f.path(args[0]), nil, nil)
		if err != nil {
			return err
		}
		return printRecord(cmd.OutOrStdout(), answer.body)
	}
	return cmd
}

// isStatus reports whether an error is an answer with that status.
func isStatus(err error, status int) bool {
	refused := (*adminError)(nil)
	return errors.As(err, &refused) && refused.status == status
}
