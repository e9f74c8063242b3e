package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// clientsPage is how many clients are asked for at once.
const clientsPage = 500

// listedClient is a client in the list of the admin API.
type listedClient struct {
	ClientID string `json:"client_id"`
	Source   string `json:"source"`
	Waits    *struct {
		Holder string `json:"holder"`
	} `json:"waits"`
	Record struct {
		Name     string `json:"client_name"`
		Scope    string `json:"scope"`
		Disabled bool   `json:"disabled"`
	} `json:"record"`
}

// state says in a word whether the client is in force.
func (c *listedClient) state() string {
	switch {
	case c.Waits != nil:
		return "waits for " + c.Waits.Holder
	case c.Record.Disabled:
		return "disabled"
	}
	return "enabled"
}

// listFlags say which clients are listed.
type listFlags struct {
	*realmFlags
	filter, after string
	limit         int
	waiting       bool
	json          *bool
}

func clientsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [--q <text>] [--limit <n>] [--after <id>] [--json]",
		Short: "Lists clients in the order of their IDs",
		Long: `
Lists the clients of a realm in the order of their IDs, at most --limit of
them. If there are more, standard error says how to see them.

With --json, each line of the output is a client as the admin API lists it.

	$ caddy mtls clients list --q sensor`,
		Args: cobra.NoArgs,
	}
	f := listFlags{realmFlags: addRealmFlags(cmd)}
	cmd.Flags().StringVar(&f.filter, "q", "", "List only clients with this text in their ID or name, in any case")
	cmd.Flags().StringVar(&f.after, "after", "", "Begin after this client ID")
	cmd.Flags().IntVar(&f.limit, "limit", 100, "List at most that many; 0 lists all")
	cmd.Flags().BoolVar(&f.waiting, "waiting", false, "List the records that are not in force, because another source has their ID or credential")
	f.json = addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.limit < 0 {
			return usagef("--limit is negative; use 0 to list all")
		}
		show, flush := f.printer(cmd.OutOrStdout())
		listed, next, err := f.each(show)
		if listed > 0 || err == nil { // otherwise there would be titles above the error
			err = errors.Join(err, flush())
		}
		if err == nil && next != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "There may be more; continue with --after '%s'\n", source.Text(next, maxCell))
		}
		return err
	}
	return cmd
}

// each passes on clients page by page. It returns how many, and the last one if there may
// be more.
func (f *listFlags) each(show func(json.RawMessage) error) (listed int, last string, err error) {
	for after := f.after; ; {
		ask := clientsPage
		if f.limit > 0 {
			ask = min(ask, f.limit-listed)
		}
		query := url.Values{"limit": {strconv.Itoa(ask)}}
		for name, value := range map[string]string{"after": after, "q": f.filter} {
			if value != "" {
				query.Set(name, value)
			}
		}
		if f.waiting {
			query.Set("waiting", "true")
		}
		answer, err := f.admin.ask(http.MethodGet, f.clients()+"?"+query.Encode(), nil, nil)
		if err != nil {
			return listed, "", err
		}
		var page struct {
			Clients []json.RawMessage `json:"clients"`
			Next    string            `json:"next"`
		}
		if err := json.Unmarshal(answer.body, &page); err != nil {
			return listed, "", errUnreadable(err)
		}
		for _, client := range page.Clients {
			if err := show(client); err != nil {
				return listed, "", err
			}
			listed++
		}
		if after = page.Next; after == "" || f.limit > 0 && listed >= f.limit {
			return listed, after, nil
		}
	}
}

// printer returns a function that prints a client, and one that ends the output.
func (f *listFlags) printer(out io.Writer) (show func(json.RawMessage) error, flush func() error) {
	if *f.json {
		return func(client json.RawMessage) error { return printLine(out, client) }, func() error { return nil }
	}
	t := newTable(out, column{title: "CLIENT_ID", most: maxClientID}, column{title: "SOURCE"}, column{title: "STATE", most: maxClientID}, column{title: "SCOPE"}, column{title: "NAME"})
	return func(client json.RawMessage) error {
		var c listedClient
		if err := json.Unmarshal(client, &c); err != nil {
			return errUnreadable(err)
		}
		t.row(c.ClientID, c.Source, c.state(), c.Record.Scope, c.Record.Name)
		return nil
	}, t.flush
}
