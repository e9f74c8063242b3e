package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// clientsPage is how many clients are asked for at once.
	clientsPage = 500
	// maxCell bounds what the table shows of a value, in bytes.
	maxCell = 60
)

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
	waiting, json bool
}

func clientsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [--q <text>] [--limit <n>] [--after <id>] [--json]",
		Short: "Lists clients in the order of their IDs",
		Long: `
Lists the clients of a realm in the order of their IDs, at most --limit of
them. If there are more, standard error says how to see them.

With --json, each line of the output is a client as the admin API lists it.`,
		Args: cobra.NoArgs,
	}
	f := listFlags{realmFlags: addRealmFlags(cmd)}
	cmd.Flags().StringVar(&f.filter, "q", "", "List only clients with this text in their ID or name, in any case")
	cmd.Flags().StringVar(&f.after, "after", "", "Begin after this client ID")
	cmd.Flags().IntVar(&f.limit, "limit", 100, "List at most that many; 0 lists all")
	cmd.Flags().BoolVar(&f.waiting, "waiting", false, "List the records that are not in force, because another source has their ID or credential")
	cmd.Flags().BoolVar(&f.json, "json", false, "Print a JSON object for each client")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.limit < 0 {
			return errors.New("--limit is negative; use 0 to list all")
		}
		var out io.Writer = cmd.OutOrStdout()
		if !f.json {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			defer table.Flush()
			out = table
			fmt.Fprintln(out, "CLIENT_ID\tSOURCE\tSTATE\tSCOPE\tNAME")
		}
		next, err := f.print(out)
		if err == nil && next != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "There may be more; continue with --after '%s'\n", source.Text(next, maxCell))
		}
		return err
	}
	return cmd
}

// print lists clients page by page, and returns the last one if there may be more.
func (f *listFlags) print(out io.Writer) (last string, err error) {
	listed := 0
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
			return "", err
		}
		var page struct {
			Clients []json.RawMessage `json:"clients"`
			Next    string            `json:"next"`
		}
		if err := json.Unmarshal(answer.body, &page); err != nil {
			return "", fmt.Errorf("the answer of the admin API cannot be read: %w", err)
		}
		for _, client := range page.Clients {
			if err := f.printClient(out, client); err != nil {
				return "", err
			}
		}
		listed += len(page.Clients)
		if after = page.Next; after == "" || f.limit > 0 && listed >= f.limit {
			return after, nil
		}
	}
}

func (f *listFlags) printClient(out io.Writer, text json.RawMessage) error {
	if f.json {
		var line bytes.Buffer
		if err := json.Compact(&line, text); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, printable(line.String()))
		return err
	}
	var c listedClient
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("the answer of the admin API cannot be read: %w", err)
	}
	_, err := fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", source.Text(c.ClientID, maxClientID), source.Text(c.Source, maxCell), source.Text(c.state(), maxClientID),
		source.Text(c.Record.Scope, maxCell), source.Text(c.Record.Name, maxCell))
	return err
}

// maxClientID bounds a client ID in the output, in bytes.
const maxClientID = 256
