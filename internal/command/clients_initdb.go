package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/clients/postgres"
)

// initialized is what `clients init-db --json` prints.
type initialized struct {
	Table string `json:"table"`
	Ready bool   `json:"ready"`
	SQL   string `json:"sql,omitempty"`
}

func clientsInitDBCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init-db --dsn <dsn> [--table <name>] [--json] | --print [--table <name>] [--json]",
		Short: "Creates the table of clients in a PostgreSQL database",
		Long: `
Creates the table that 'clients_from postgres' reads, with what belongs to it:
an index, a table of deleted clients, and triggers. Run again, it changes
nothing, and mends what is missing. Clients that are there stay.

Other users of the machine can see the arguments of a command, so name a
variable or a file that has the DSN.`,
		Example: `  caddy mtls clients init-db --dsn '{env.DATABASE_URL}'
  caddy mtls clients init-db --dsn '{file./run/secrets/dsn}' --table partners.clients
  caddy mtls clients init-db --print`,
		Args: cobra.NoArgs,
	}
	dsn := cmd.Flags().String("dsn", "", "The database, as in the configuration; {env.*} and {file.*} are resolved")
	table := cmd.Flags().String("table", postgres.DefaultTable, "Name of the table, as in SQL")
	onlyPrint := cmd.Flags().Bool("print", false, "Print the SQL instead of running it")
	asJSON := addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *onlyPrint {
			sql, err := postgres.Schema(*table)
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(cmd.OutOrStdout(), initialized{*table, false, sql})
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), sql)
			return err
		}
		if *dsn == "" {
			return usagef("no database is named; add --dsn '{env.DATABASE_URL}', or --print")
		}
		expanded, err := postgres.ExpandDSN(*dsn)
		if err != nil {
			return err
		}
		if err := postgres.InitDB(cmd.Context(), expanded, *table); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), initialized{*table, true, ""})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Table %s is ready.\n", *table)
		return err
	}
	return cmd
}
