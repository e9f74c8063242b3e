package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxSourceError bounds what the table shows of an error, in bytes.
const maxSourceError = 300

// describedRealm is a realm in the answer of the admin API.
type describedRealm struct {
	Realm   string `json:"realm"`
	Sources []struct {
		Name     string `json:"name"`
		Clients  int    `json:"clients"`
		Refused  int    `json:"refused"`
		Writable bool   `json:"writable"`
		Error    string `json:"error"`
	} `json:"sources"`
}

func realmsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "realms [--json]",
		Short: "Lists the realms of a running Caddy and the sources of their clients",
		Long: `
Lists the sources of clients of each realm, the one with the highest rank first:
how many clients are in force, how many records are not because they are wrong
or wait, which source 'caddy mtls clients' writes to, and what is wrong with a
source.

With --json, prints the answer of the admin API.`,
		Args: cobra.NoArgs,
	}
	f := addAdminFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "Print the answer of the admin API")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		answer, err := f.ask(http.MethodGet, "/mtls/realms", nil, nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printRecord(cmd.OutOrStdout(), answer.body)
		}
		var list struct {
			Realms []describedRealm `json:"realms"`
		}
		if err := json.Unmarshal(answer.body, &list); err != nil {
			return fmt.Errorf("the answer of the admin API cannot be read: %w", err)
		}
		return printRealms(cmd.OutOrStdout(), list.Realms)
	}
	return cmd
}

func printRealms(out io.Writer, realms []describedRealm) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "REALM\tSOURCE\tCLIENTS\tREFUSED\tWRITABLE\tERROR")
	for _, realm := range realms {
		for _, s := range realm.Sources {
			writable := "no"
			if s.Writable {
				writable = "yes"
			}
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", source.Text(realm.Realm, maxCell), source.Text(s.Name, maxCell), s.Clients, s.Refused, writable, source.Text(s.Error, maxSourceError))
		}
	}
	return table.Flush()
}
