package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// listedRefusals is how many refusals are listed unless the command says otherwise.
const listedRefusals = 20

// explainedRefusal is a refusal in the answer of the admin API.
type explainedRefusal struct {
	refusals.Record
	Sentence string `json:"sentence"`
	Remedy   string `json:"remedy"`
}

func whyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why [<error_id>] [--client-id <id>] [--reason <reason>] [--since <time>] [--limit <n>]",
		Short: "Explains why a running Caddy refused a request, by its error id",
		Long: `
Shows what happened when to whom, why, what the certificate comes close to, what
to do about it, and the client block to paste if that helps. The error id is the
one that the caller got. It may be pasted with what is around it, such as
'certificate_refused (error id: 7gsx4nkp2)'.

Without an error id, lists recent refusals, the newest first.

Asks the admin API of a running Caddy. Each node remembers its own refusals, for
24 hours unless the realm says otherwise.

The exit status is 1 if no such refusal is remembered.

Explain the refusal of which a caller complains:

	$ caddy mtls why 7gsx4nkp2

List what was refused of a client within the last two hours:

	$ caddy mtls why --client-id billing.partner --since 2h

List the certificates that nobody has registered:

	$ caddy mtls why --reason certificate_unknown`,
		Args: cobra.ArbitraryArgs,
	}
	f := addAdminFlags(cmd)
	asJSON := addJSONFlag(cmd)
	cmd.Flags().String("realm", "", "List only the refusals of this realm")
	cmd.Flags().String("client-id", "", "List only the refusals of this client")
	cmd.Flags().String("reason", "", "List only the refusals for this reason")
	cmd.Flags().String("since", "", "List only the refusals since a time, such as 2027-01-31T12:00:00Z, or within a duration, such as 2h")
	limit := cmd.Flags().Int("limit", listedRefusals, "List at most this many refusals")
	_ = cmd.RegisterFlagCompletionFunc("realm", f.completeRealms) // which fails without the flag
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(knownReasons(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkLimit(*limit); err != nil {
			return err
		}
		query := url.Values{"limit": {strconv.Itoa(*limit)}}
		for _, name := range []string{"realm", "client-id", "reason", "since"} {
			if flag := cmd.Flags().Lookup(name); flag.Changed { // also to "", which is refused
				query.Set(strings.ReplaceAll(name, "-", "_"), flag.Value.String())
			}
		}
		out := cmd.OutOrStdout()
		if len(args) == 0 {
			return f.listRefusals(out, cmd.ErrOrStderr(), query, *limit, *asJSON)
		}
		if len(query) > 1 || cmd.Flags().Changed("limit") {
			return usagef("an error id has exactly one refusal; leave out either the error id or the flags that list refusals")
		}
		id, err := refusals.ErrorIDIn(strings.Join(args, " "))
		if err != nil {
			return usageError{err}
		}
		answer, err := f.ask(http.MethodGet, "/mtls/refusals/"+id, nil, nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printRecord(out, answer.body)
		}
		var refusal explainedRefusal
		if err := json.Unmarshal(answer.body, &refusal); err != nil {
			return errUnreadable(err)
		}
		printRefusal(out, &refusal, time.Now())
		return nil
	}
	return cmd
}

func knownReasons() (list []string) {
	for _, text := range reasons.All() {
		list = append(list, text.Reason)
	}
	return list
}

// listRefusals prints the refusals that a query selects.
func (f *adminFlags) listRefusals(out, notes io.Writer, query url.Values, limit int, asJSON bool) error {
	if reason := query.Get("reason"); query.Has("reason") {
		if _, known := reasons.Of(reason); !known {
			return usagef("no refusal has the reason '%s'; %s", reason, caddyfileutil.Suggest(reason, knownReasons()))
		}
	}
	answer, err := f.ask(http.MethodGet, "/mtls/refusals?"+query.Encode(), nil, nil)
	if refused := new(adminError); errors.As(err, &refused) && refused.status == http.StatusBadRequest {
		return usageError{err} // such as a time that cannot be read
	}
	if err != nil {
		return err
	}
	if asJSON {
		return printRecord(out, answer.body)
	}
	var list struct {
		Refusals []refusals.Record `json:"refusals"`
	}
	if err := json.Unmarshal(answer.body, &list); err != nil {
		return errUnreadable(err)
	}
	if len(list.Refusals) == 0 {
		fmt.Fprintln(notes, "No such refusal is remembered. Each node remembers its own.")
		return nil
	}
	t := newTable(out, column{title: "TIME"}, column{title: "ERROR_ID"}, column{title: "REALM"}, column{title: "REASON"}, column{title: "DIRECTIVE"}, column{title: "CALLER"}, column{title: "REMOTE_IP"}, column{title: "TIMES", right: true})
	for i := range list.Refusals {
		r := &list.Refusals[i]
		t.row(r.At.UTC().Format(time.RFC3339), r.ErrorID, r.Realm, r.Reason, r.Directive, callerOf(r), r.RemoteIP, strconv.Itoa(r.Times))
	}
	if len(list.Refusals) == limit {
		fmt.Fprintln(notes, "There may be more; see --limit.")
	}
	return t.flush()
}

// callerOf says who was refused, as far as that is known.
func callerOf(r *refusals.Record) string {
	switch {
	case r.ClientID != "" && !r.Claimed:
		return r.ClientID
	case r.Certificate != nil:
		return r.Certificate.Subject
	}
	return ""
}

// maxShownText bounds what is printed of a text that a stranger may have chosen, in bytes.
// The texts of a refusal are bounded already.
const maxShownText = 4 << 10

// printRefusal prints everything about a refusal.
func printRefusal(out io.Writer, r *explainedRefusal, now time.Time) {
	f := facts{out}
	show := func(label, text string) {
		if text != "" {
			f.print(label, "%s", source.Text(text, maxShownText))
		}
	}
	show("error id", r.ErrorID)
	f.print("time", "%s (%s ago)", r.At.UTC().Format(time.RFC3339), now.Sub(r.At).Round(time.Second))
	what := r.Message + ", by " + r.Directive
	if r.Realm != "" {
		what += " of realm '" + r.Realm + "'"
	}
	if r.ReportOnly {
		what += "; report_only passed the request on"
	}
	show("what", what)
	if r.Forwarded {
		show("from", "a client behind the proxy "+r.RemoteIP)
	} else {
		show("from", r.RemoteIP)
	}
	show("request", r.Host+r.URI)
	if r.Claimed {
		show("client", r.ClientID+" (the request says so)")
	} else {
		show("client", r.ClientID)
	}
	show("reason", r.Reason)
	show("detail", r.Detail)
	show("hint", r.Hint)
	if c := r.Certificate; c != nil {
		show("subject", orNone(c.Subject))
		show("issuer", orNone(c.Issuer))
		show("serial", c.Serial)
		f.print("valid", "from %s until %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
		show("thumbprint", c.Thumbprint)
		for _, name := range c.Names {
			show("names", name)
		}
	}
	show("token issuer", r.TokenIssuer)
	show("token id", r.TokenID)
	if r.Times > 1 {
		f.print("times", "%d since %s", r.Times, r.First.UTC().Format(time.RFC3339))
	}
	printAdvice(out, r.Sentence, r.Remedy)
	if r.Register != "" {
		printRegister(out, r.Realm)
		for line := range strings.Lines(r.Register) {
			text := strings.TrimLeft(strings.TrimSuffix(line, "\n"), "\t")
			indent := strings.Repeat("\t", len(line)-len(strings.TrimLeft(line, "\t")))
			fmt.Fprintln(out, indent+source.Text(text, maxShownText))
		}
	}
}

// printAdvice prints what a reason means and what to do about it.
func printAdvice(out io.Writer, sentence, remedy string) {
	for _, text := range []string{sentence, remedy} {
		if text != "" {
			fmt.Fprintf(out, "\n%s\n", wrapped(source.Text(text, maxShownText)))
		}
	}
}

// printRegister prints what to do with the client block of a realm that follows.
func printRegister(out io.Writer, realm string) {
	before, paste := reasons.Register(source.Text(realm, maxShownText))
	fmt.Fprintf(out, "\n%s\n\n%s\n\n", wrapped(before), wrapped(paste))
}

// wrapped breaks a text into lines for a terminal.
func wrapped(text string) string {
	const width = 78
	var out strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		size := displayWidth(word)
		switch {
		case column == 0:
		case column+1+size > width:
			out.WriteByte('\n')
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += size
	}
	return out.String()
}
