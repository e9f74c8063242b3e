package issuer_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestTokenEndsWithItsCredential_C2 checks that a token ends when the credential that
// the client got it with is removed, or the client is disabled: on an open connection to
// mtls_bearer, and in introspection, also on a node that has not issued it. Nothing is
// reloaded.
func TestTokenEndsWithItsCredential_C2(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	one, two, checker := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	r.Leaves = append(r.Leaves, one, two, checker)
	clientsFile := func(disabled bool, leaves ...*testpki.Leaf) {
		var thumbprints []string
		for _, leaf := range leaves {
			thumbprints = append(thumbprints, testpki.HashOf(leaf.Cert.Raw))
		}
		text, err := json.Marshal([]map[string]any{
			{"client_id": "partner", "disabled": disabled, "x509_thumbprints": thumbprints},
			{"client_id": "checker", "introspect": "https://auth.test", "x509_thumbprints": testpki.HashOf(checker.Cert.Raw)},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Write("partners.json", text)
	}
	clientsFile(false, one, two)
	realm := strings.Replace(rig.IssuerRealm(""), "client billing.partner", "clients_from file \"@DIR@/partners.json\"\nclient billing.partner", 1)
	r.Start(realm, rig.BearerSites)
	other := rig.Node(r, t, realm, rig.BearerSites)

	tokens, callers := map[*testpki.Leaf]string{}, map[*testpki.Leaf]*rig.Caller{}
	connections := map[*testpki.Leaf]*rig.Connections{}
	for _, leaf := range []*testpki.Leaf{one, two} {
		tokens[leaf] = rig.AccessToken(r, t, leaf, "partner")
		callers[leaf] = r.Caller(t, "h2", leaf)
		callers[leaf].Always = []func(*http.Request){rig.Bearer(tokens[leaf])}
		connections[leaf] = callers[leaf].ConnectionsTo("api.test")
	}
	want := func(step string, good map[*testpki.Leaf]bool) {
		t.Helper()
		for _, leaf := range []*testpki.Leaf{one, two} {
			status := http.StatusUnauthorized
			if good[leaf] {
				status = http.StatusOK
			}
			callers[leaf].Eventually(t, status)
			connections[leaf].WantOne(t)
			for _, node := range []*rig.Rig{r, other} {
				rig.Await(r, t, step, func() bool {
					return (introspect(node, t, "h2", checker, "checker", tokens[leaf]) != rig.Inactive) == good[leaf]
				})
			}
		}
	}
	want("at first", map[*testpki.Leaf]bool{one: true, two: true})
	clientsFile(false, two)
	want("one removed", map[*testpki.Leaf]bool{two: true})
	r.Logs.Wait(t, "why the token is inactive", func(entry rig.LogEntry) bool { return entry.Str("reason") == "token_credential_gone" })
	clientsFile(false, one, two)
	want("one is back", map[*testpki.Leaf]bool{one: true, two: true})
	clientsFile(true, one, two)
	want("disabled", nil)
	clientsFile(false, one)
	want("two removed", map[*testpki.Leaf]bool{one: true})
}
