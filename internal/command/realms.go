package command

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"
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

With --json, prints the answer of the admin API.

	$ caddy mtls realms`,
		Args: cobra.NoArgs,
	}
	f := addAdminFlags(cmd)
	asJSON := addJSONFlag(cmd)
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
			return errUnreadable(err)
		}
		return printRealms(cmd.OutOrStdout(), list.Realms)
	}
	return cmd
}

func printRealms(out io.Writer, realms []describedRealm) error {
	t := newTable(out, column{title: "REALM"}, column{title: "SOURCE"}, column{title: "CLIENTS", right: true}, column{title: "REFUSED", right: true}, column{title: "WRITABLE"}, column{title: "ERROR", most: maxSourceError})
	for _, realm := range realms {
		for _, s := range realm.Sources {
			t.row(realm.Realm, s.Name, strconv.Itoa(s.Clients), strconv.Itoa(s.Refused), yesNo(s.Writable), s.Error)
		}
	}
	return t.flush()
}

// yesNo returns the word for a value in a table.
func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
