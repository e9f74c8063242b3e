package mtlsauth

import (
	"crypto/x509"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxAdminCAs is how many CAs of a trust pool are described.
const maxAdminCAs = 100

// adminRealm describes a realm.
type adminRealm struct {
	Realm string `json:"realm"`
	// Clients is how many are in force.
	Clients int `json:"clients"`
	// WrittenTo is the source that changes of clients are written to, "" if none can
	// be.
	WrittenTo string        `json:"written_to,omitempty"`
	Sources   []adminSource `json:"sources"`
	TrustPool *adminTrust   `json:"trust_pool,omitempty"`
	Shadow    *adminTrust   `json:"shadow_trust_pool,omitempty"`
	Issuer    *adminIssuer  `json:"issuer,omitempty"`
}

// adminSource describes a source of clients.
type adminSource struct {
	Name string `json:"name"`
	// Rank is 0 for the configuration, and 1 for the first of clients_from.
	Rank int `json:"rank"`
	// Clients is how many are in force, and Refused how many records are not.
	Clients int `json:"clients"`
	Refused int `json:"refused"`
	// Writable is set if changes of clients are written to it.
	Writable bool `json:"writable"`
	// LastSuccess is when it was last read without an error, and Error why it could not
	// be used since then.
	LastSuccess time.Time `json:"last_success,omitzero"`
	Error       string    `json:"error,omitempty"`
}

// adminTrust describes a trust pool.
type adminTrust struct {
	// System is set if it has the CAs of the operating system, which are not listed.
	System bool      `json:"system"`
	CAs    []adminCA `json:"cas"`
	// More is how many CAs are not listed.
	More int `json:"more_cas,omitempty"`
}

type adminCA struct {
	Subject    string    `json:"subject"`
	Thumbprint string    `json:"thumbprint"`
	NotAfter   time.Time `json:"not_after"`
}

type adminIssuer struct {
	URL string `json:"url"`
}

func listRealms(w http.ResponseWriter, _ *http.Request) error {
	app := runningApp()
	list := []adminRealm{} // an empty list, not null
	for _, name := range slices.Sorted(maps.Keys(app.Realms)) {
		list = append(list, describeRealm(app.Realms[name]))
	}
	return writeAdmin(w, map[string][]adminRealm{"realms": list})
}

func showRealm(w http.ResponseWriter, _ *http.Request, realm *Realm) error {
	return writeAdmin(w, describeRealm(realm))
}

func writeAdmin(w http.ResponseWriter, answer any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(answer)
}

func describeRealm(realm *Realm) adminRealm {
	current := realm.current.Load()
	described := adminRealm{Realm: realm.name, Clients: current.registry.Len(), Sources: describeSources(realm.directory)}
	if writer, ok := realm.directory.Writer(); ok {
		described.WrittenTo = writer.Info().Name
	}
	if realm.Issuer != nil {
		described.Issuer = &adminIssuer{realm.Issuer.URL}
	}
	if current.trust.Pool != nil {
		described.TrustPool = describeTrust(current.trust)
	}
	if current.shadow != nil {
		described.Shadow = describeTrust(current.shadow)
	}
	return described
}

func describeSources(from *directory.Directory) []adminSource {
	states := make(map[string]directory.SourceState)
	for _, state := range from.States(0) {
		states[state.Source] = state
	}
	writer, writable := from.Writer()
	sources := []adminSource{}
	for rank, size := range from.Sizes() {
		state := states[directory.SourceLabel(size.Source)]
		sources = append(sources, adminSource{
			Name: size.Source, Rank: rank, Clients: size.Clients, Refused: size.Refused,
			Writable:    writable && writer.Info().Name == size.Source,
			LastSuccess: state.Success.UTC(), Error: state.Failure,
		})
	}
	return sources
}

func describeTrust(trust *trustpool.Trust) *adminTrust {
	described := &adminTrust{System: trust.System, CAs: []adminCA{}, More: max(len(trust.Certificates)-maxAdminCAs, 0)}
	for _, ca := range trust.Certificates[:min(len(trust.Certificates), maxAdminCAs)] {
		described.CAs = append(described.CAs, describeCA(ca))
	}
	return described
}

func describeCA(ca *x509.Certificate) adminCA {
	return adminCA{dn.Format(ca.RawSubject), validators.ThumbprintOf(ca.Raw).String(), ca.NotAfter.UTC()}
}
