package adminapi

import (
	"crypto/x509"
	"net/http"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxCAs is how many CAs of a trust pool are described.
const maxCAs = 100

// realmInfo describes a realm.
type realmInfo struct {
	Realm string `json:"realm"`
	// Clients is how many are in force.
	Clients int `json:"clients"`
	// WrittenTo is the source that changes of clients are written to, "" if none can
	// be.
	WrittenTo string       `json:"written_to,omitempty"`
	Sources   []sourceInfo `json:"sources"`
	TrustPool *trustInfo   `json:"trust_pool,omitempty"`
	Shadow    *trustInfo   `json:"shadow_trust_pool,omitempty"`
	Issuer    *issuerInfo  `json:"issuer,omitempty"`
}

// sourceInfo describes a source of clients.
type sourceInfo struct {
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

// trustInfo describes a trust pool.
type trustInfo struct {
	// System is set if it has the CAs of the operating system, which are not listed.
	System bool     `json:"system"`
	CAs    []caInfo `json:"cas"`
	// More is how many CAs are not listed.
	More int `json:"more_cas,omitempty"`
}

type caInfo struct {
	Subject    string    `json:"subject"`
	Thumbprint string    `json:"thumbprint"`
	NotAfter   time.Time `json:"not_after"`
}

type issuerInfo struct {
	URL string `json:"url"`
}

func (a api) listRealms(w http.ResponseWriter, _ *http.Request) error {
	app := a.running()
	list := []realmInfo{} // an empty list, not null
	for _, name := range app.Observed().Names() {
		realm, err := app.Realm(name)
		if err != nil {
			return err
		}
		list = append(list, describeRealm(realm))
	}
	return writeJSON(w, map[string][]realmInfo{"realms": list})
}

func showRealm(w http.ResponseWriter, _ *http.Request, realm Realm) error {
	return writeJSON(w, describeRealm(realm))
}

func describeRealm(realm Realm) realmInfo {
	described := realmInfo{Realm: realm.Name, Clients: realm.Registry.Len(), Sources: describeSources(realm.Directory)}
	if writer, ok := realm.Directory.Writer(); ok {
		described.WrittenTo = writer.Info().Name
	}
	if realm.Issuer != nil {
		described.Issuer = &issuerInfo{realm.Issuer.URL}
	}
	described.TrustPool, described.Shadow = describeTrust(realm.Pool(observed.TrustPool)), describeTrust(realm.Pool(observed.ShadowPool))
	return described
}

func describeSources(from *directory.Directory) []sourceInfo {
	states := make(map[string]directory.SourceState)
	for _, state := range from.States(0) {
		states[state.Source] = state
	}
	writer, writable := from.Writer()
	sources := []sourceInfo{}
	for rank, size := range from.Sizes() {
		state := states[directory.SourceLabel(size.Source)]
		sources = append(sources, sourceInfo{
			Name: size.Source, Rank: rank, Clients: size.Clients, Refused: size.Refused,
			Writable:    writable && writer.Info().Name == size.Source,
			LastSuccess: state.Success.UTC(), Error: state.Failure,
		})
	}
	return sources
}

// describeTrust returns nil if there is no trust pool.
func describeTrust(trust *trustpool.Trust) *trustInfo {
	if trust == nil {
		return nil
	}
	described := &trustInfo{System: trust.System, CAs: []caInfo{}, More: max(len(trust.Certificates)-maxCAs, 0)}
	for _, ca := range trust.Certificates[:min(len(trust.Certificates), maxCAs)] {
		described.CAs = append(described.CAs, describeCA(ca))
	}
	return described
}

func describeCA(ca *x509.Certificate) caInfo {
	return caInfo{dn.Format(ca.RawSubject), validators.ThumbprintOf(ca.Raw).String(), ca.NotAfter.UTC()}
}
