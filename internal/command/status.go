package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// maxSubject bounds what a table shows of a subject or a hint, in bytes.
const maxSubject = 100

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [--realm <name>] [--query <text>] [--never] [--after <client_id>] [--limit <n>]",
		Short: "Shows how the realms of a running Caddy are doing",
		Long: `
Shows what the status page shows: traffic and refusals of the last hour, the
certificates that expire within 90 days, clients and when they were last seen,
strangers, clients that would fail under the shadow trust pool, signing keys,
and sources with their age.

Asks the admin API of a running Caddy. Each node shows what it has seen itself.

	$ caddy mtls status

List the clients that have never been seen:

	$ caddy mtls status --never --limit 1000`,
		Args: cobra.NoArgs,
	}
	f := addAdminFlags(cmd)
	asJSON := addJSONFlag(cmd)
	realm := cmd.Flags().String("realm", "", "Show only this realm")
	text := cmd.Flags().String("query", "", "List only clients with this text in their id or name")
	never := cmd.Flags().Bool("never", false, "List only clients that have not been seen")
	after := cmd.Flags().String("after", "", "List the clients after this one")
	limit := cmd.Flags().Int("limit", 0, "List at most this many clients of each realm (default 50)")
	_ = cmd.RegisterFlagCompletionFunc("realm", f.completeRealms) // which fails without the flag
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query := make(url.Values)
		for name, value := range map[string]string{"realm": *realm, "q": *text, "after": *after} {
			if value != "" {
				query.Set(name, value)
			}
		}
		if *never {
			query.Set("never", "true")
		}
		if cmd.Flags().Changed("limit") {
			if err := checkLimit(*limit); err != nil {
				return err
			}
			query.Set("limit", strconv.Itoa(*limit))
		}
		answer, err := f.ask(http.MethodGet, "/mtls/status?"+query.Encode(), nil, nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printRecord(cmd.OutOrStdout(), answer.body)
		}
		var report status.Report
		if err := json.Unmarshal(answer.body, &report); err != nil {
			return errUnreadable(err)
		}
		return printReport(cmd.OutOrStdout(), &report)
	}
	return cmd
}

func printReport(out io.Writer, report *status.Report) error {
	for i := range report.Realms {
		if err := printRealmStatus(out, &report.Realms[i]); err != nil {
			return err
		}
	}
	if len(report.Sources) > 0 {
		fmt.Fprintf(out, "Sources of no realm:\n\n")
		return printSources(out, report.Sources)
	}
	return nil
}

// printRealmStatus prints what there is of a realm, each kind as a table.
func printRealmStatus(out io.Writer, realm *status.Realm) error {
	t := &realm.Traffic
	fmt.Fprintf(out, "Realm %s, counted since %s\n", source.Text(realm.Name, maxCell), stamp(realm.Since))
	fmt.Fprintf(out, "  last hour: %d admitted, %d refused, %d tokens issued\n", t.Admitted.Total, t.Refused.Total, t.Tokens.Total)
	fmt.Fprintf(out, "  clients: %d of %d seen\n", realm.Clients.Seen, realm.Clients.Total)
	if realm.Issuer != nil {
		fmt.Fprintf(out, "  issuer: %s, %d tokens revoked, next key signs from %s\n", source.Text(realm.Issuer.URL, maxSourceError), realm.Issuer.RevokedTokens, stamp(realm.Issuer.NextRotation))
	}
	fmt.Fprintln(out)
	for _, part := range []struct {
		title string
		n     int
		print func() error
		more  int
	}{
		{"Refusals of the last hour", len(t.Reasons), func() error { return printReasons(out, t.Reasons) }, 0},
		{"Certificates that expire within 90 days", len(realm.Expiring), func() error { return printExpiring(out, realm.Expiring) }, realm.MoreExpiring},
		{"Clients", len(realm.Clients.List), func() error { return printSeen(out, realm.Clients.List) }, 0},
		{"Strangers; caddy mtls why <error_id> says what to do about each", len(realm.Strangers), func() error { return printStrangers(out, realm) }, realm.MoreStrangers},
		{"Clients that fail under the shadow trust pool", len(failing(realm)), func() error { return printFailing(out, failing(realm)) }, moreFailing(realm)},
		{"Signing keys", len(keysOf(realm)), func() error { return printSigningKeys(out, keysOf(realm)) }, 0},
		{"Sources", len(realm.Sources), func() error { return printSources(out, realm.Sources) }, 0},
	} {
		if part.n == 0 {
			continue
		}
		fmt.Fprintf(out, "%s:\n\n", part.title)
		if err := part.print(); err != nil {
			return err
		}
		if part.more > 0 {
			fmt.Fprintf(out, "and %d more\n", part.more)
		}
		fmt.Fprintln(out)
	}
	if realm.Clients.Next != "" {
		fmt.Fprintf(out, "More clients: --realm %s --after %s\n\n", source.Text(realm.Name, maxCell), source.Text(realm.Clients.Next, maxClientID))
	}
	return nil
}

func failing(realm *status.Realm) []status.ShadowFailure {
	if realm.Shadow == nil {
		return nil
	}
	return realm.Shadow.Failing
}

func moreFailing(realm *status.Realm) int {
	if realm.Shadow == nil {
		return 0
	}
	return realm.Shadow.More
}

func keysOf(realm *status.Realm) []status.Key {
	if realm.Issuer == nil {
		return nil
	}
	return realm.Issuer.Keys
}

func printReasons(out io.Writer, reasons []status.Reason) error {
	t := newTable(out, column{title: "REASON"}, column{title: "TIMES", right: true}, column{title: "REPORT_ONLY", right: true})
	for _, r := range reasons {
		t.row(r.Reason, strconv.FormatUint(r.Total, 10), strconv.FormatUint(r.ReportOnly, 10))
	}
	return t.flush()
}

func printExpiring(out io.Writer, list []status.Expiring) error {
	t := newTable(out, column{title: "EXPIRES"}, column{title: "KIND"}, column{title: "CLIENT_ID", most: maxClientID}, column{title: "SUBJECT", most: maxSubject}, column{title: "THUMBPRINT", most: 64})
	for _, e := range list {
		t.row(stamp(e.NotAfter), e.Kind, e.ClientID, e.Subject, e.Thumbprint)
	}
	return t.flush()
}

func printSeen(out io.Writer, list []status.Client) error {
	t := newTable(out, column{title: "CLIENT_ID", most: maxClientID}, column{title: "NAME"}, column{title: "LAST_SEEN"}, column{title: "CREDENTIAL"}, column{title: "EXPIRES"}, column{title: "SOURCE"}, column{title: "DISABLED"})
	for _, c := range list {
		seen := "never"
		if !c.LastSeen.IsZero() {
			seen = stamp(c.LastSeen)
		}
		t.row(c.ClientID, c.Name, seen, c.Credential, stamp(c.NotAfter), c.Source, yesNo(c.Disabled))
	}
	return t.flush()
}

func printStrangers(out io.Writer, realm *status.Realm) error {
	t := newTable(out, column{title: "LAST"}, column{title: "TIMES", right: true}, column{title: "ERROR_ID"}, column{title: "REMOTE_IP"}, column{title: "REASON"}, column{title: "SUBJECT", most: maxSubject}, column{title: "HINT", most: maxSubject})
	for _, s := range realm.Strangers {
		t.row(stamp(s.Last), strconv.Itoa(s.Times), s.ErrorID, s.RemoteIP, s.Reason, s.Subject, s.Hint)
	}
	return t.flush()
}

func printFailing(out io.Writer, list []status.ShadowFailure) error {
	t := newTable(out, column{title: "CLIENT_ID", most: maxClientID}, column{title: "SUBJECT", most: maxSubject}, column{title: "ANOTHER_SEEN"}, column{title: "WHY", most: maxSourceError})
	for _, f := range list {
		t.row(f.ClientID, f.Subject, stamp(f.Another), f.Why)
	}
	return t.flush()
}

func printSigningKeys(out io.Writer, list []status.Key) error {
	t := newTable(out, column{title: "KID", most: maxKeyID}, column{title: "ALG"}, column{title: "STATE"}, column{title: "CREATED"}, column{title: "SIGNS_FROM"}, column{title: "LEAVES_AT"})
	for _, k := range list {
		t.row(k.ID, k.Algorithm, k.State, stamp(k.Created), stamp(k.From), stamp(k.Until))
	}
	return t.flush()
}

func printSources(out io.Writer, list []status.Source) error {
	t := newTable(out, column{title: "SOURCE", most: maxSubject}, column{title: "STATE"}, column{title: "LAST_READ"}, column{title: "NORMAL_AGE", right: true}, column{title: "NEXT_UPDATE"}, column{title: "COPY", most: maxSubject}, column{title: "COPY_TIME"}, column{title: "ERROR", most: maxSourceError})
	for _, s := range list {
		state := "ok"
		switch {
		case s.Error != "":
			state = "failing"
		case s.Late:
			state = "late"
		}
		t.row(s.Name, state, stamp(s.LastSuccess), normalAge(s.Normal), stamp(s.NextUpdate), s.Copy, stamp(s.CopyTime), s.Error)
	}
	return t.flush()
}

// normalAge returns how old a source in order is at most, or "-" if that is unknown.
func normalAge(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return (time.Duration(seconds) * time.Second).String()
}

// stamp returns a time in UTC, or "-" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04Z")
}
