package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxKeyID bounds a kid in the output, in bytes.
const maxKeyID = 512

// keyringAnswer is the answer of the admin API about signing keys.
type keyringAnswer struct {
	Rotated string `json:"rotated"`
	Keys    []struct {
		ID        string    `json:"kid"`
		Algorithm string    `json:"alg"`
		State     string    `json:"state"`
		Created   time.Time `json:"created"`
		SignsFrom time.Time `json:"signs_from"`
		Leaves    time.Time `json:"leaves_at"`
	} `json:"keys"`
	LastRead time.Time `json:"last_read"`
}

// keys returns the path of the signing keys of the realm.
func (f *realmFlags) keys() string { return "/mtls/realms/" + escapeSegment(f.realm) + "/keys" }

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys <command>",
		Short: "Lists and rotates the signing keys of a running Caddy",
		Long: `
Lists the signing keys of a realm's issuer, and replaces them. Private keys are
never shown.

The commands send requests to the admin API of a running Caddy.`,
		Args: cobra.NoArgs,
		RunE: missingCommand,
	}
	cmd.AddCommand(keysListCommand(), keysRotateCommand())
	return cmd
}

func keysListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [--json]",
		Short: "Lists the signing keys",
		Long: `
Lists the keys that an issuer publishes: which one signs, which one is next, and
when each leaves.

	$ caddy mtls keys list`,
		Args: cobra.NoArgs,
	}
	f := addRealmFlags(cmd)
	asJSON := addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		answer, err := f.admin.ask(http.MethodGet, f.keys(), nil, nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printRecord(cmd.OutOrStdout(), answer.body)
		}
		var ring keyringAnswer
		if err := json.Unmarshal(answer.body, &ring); err != nil {
			return errUnreadable(err)
		}
		return ring.print(cmd.OutOrStdout())
	}
	return cmd
}

func (ring *keyringAnswer) print(out io.Writer) error {
	t := newTable(out, column{title: "KID", most: maxKeyID}, column{title: "ALG"}, column{title: "STATE"}, column{title: "CREATED"}, column{title: "SIGNS_FROM"}, column{title: "LEAVES_AT"})
	for _, key := range ring.Keys {
		t.row(key.ID, key.Algorithm, key.State, timeCell(key.Created), timeCell(key.SignsFrom), timeCell(key.Leaves))
	}
	return t.flush()
}

// timeCell returns a time for a table, "" if it is not known.
func timeCell(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}

func keysRotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate [--retire now]",
		Short: "Announces the next signing key, or replaces all keys at once",
		Long: `
Announces a new key, which signs after 'announce_for'. Tokens stay good. Fails
if a next key is announced already.

If somebody may have read a key, replace all of them at once. All tokens that
have been issued stop working:

	$ caddy mtls keys rotate --retire now

Announce the next key before its time:

	$ caddy mtls keys rotate`,
		Args: cobra.NoArgs,
	}
	f := addRealmFlags(cmd)
	retire := cmd.Flags().String("retire", "", `"now" retires all other keys, and ends all tokens`)
	asJSON := addJSONFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("retire", cobra.FixedCompletions([]string{"now"}, cobra.ShellCompDirectiveNoFileComp)) // which fails without the flag
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var header http.Header
		var body []byte
		switch {
		case *retire == "now":
			header, body = http.Header{"Content-Type": {"application/json"}}, []byte(`{"retire":"now"}`)
		case cmd.Flags().Changed("retire"):
			return usagef("--retire is %q; write now, or leave it out", *retire)
		}
		answer, err := f.admin.ask(http.MethodPost, f.keys()+"/rotate", header, body)
		if err != nil {
			return err
		}
		if *asJSON {
			return printRecord(cmd.OutOrStdout(), answer.body)
		}
		var ring keyringAnswer
		if err := json.Unmarshal(answer.body, &ring); err != nil {
			return errUnreadable(err)
		}
		return ring.printRotation(cmd.OutOrStdout(), *retire != "")
	}
	return cmd
}

// printRotation says which key is new, and lists all.
func (ring *keyringAnswer) printRotation(out io.Writer, retired bool) error {
	kid := source.Text(ring.Rotated, maxKeyID)
	if retired {
		fmt.Fprintf(out, "key '%s' signs now; the others are retired, and all tokens that they signed have ended\n\n", kid)
	} else {
		fmt.Fprintf(out, "key '%s' is announced\n\n", kid)
	}
	return ring.print(out)
}
