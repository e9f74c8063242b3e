package command

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// maxCompletions bounds how many client IDs a shell is told.
const maxCompletions = 100

// completeArgs returns the completion of the first argument, and of no other. Without
// completions of our own, the shell would offer files.
func completeArgs(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 || complete == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}

// completeRealms asks the admin API for the realms.
func (f *adminFlags) completeRealms(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	answer, err := f.ask(http.MethodGet, "/mtls/realms", nil, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list struct {
		Realms []describedRealm `json:"realms"`
	}
	if json.Unmarshal(answer.body, &list) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, realm := range list.Realms {
		if strings.HasPrefix(realm.Realm, begun) {
			names = append(names, completion(realm.Realm)...)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeClients asks the admin API for the clients of the realm.
func (f *realmFlags) completeClients(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	query := url.Values{"limit": {strconv.Itoa(maxCompletions)}}
	if begun != "" {
		query.Set("after", begun) // IDs that begin so follow it in their order
	}
	answer, err := f.admin.ask(http.MethodGet, f.clients()+"?"+query.Encode(), nil, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var page struct {
		Clients []listedClient `json:"clients"`
	}
	if json.Unmarshal(answer.body, &page) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, client := range page.Clients {
		if strings.HasPrefix(client.ClientID, begun) {
			ids = append(ids, completion(client.ClientID)...)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// completion returns a completion for a shell. The text may come from elsewhere than
// from a Caddy, so one that cannot be an ID or the name of a realm is left out.
func completion(text string) []string {
	for _, r := range text {
		if r <= ' ' || r >= 0x7f {
			return nil
		}
	}
	return []string{text}
}
