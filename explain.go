package mtlsauth

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/command"
)

// loadExplainer provisions the realms of the app's configuration without their issuers,
// so that it neither needs nor creates signing keys, and without their storage, unless
// clients come from there.
func loadExplainer(ctx caddy.Context, raw json.RawMessage) (command.Explainer, error) {
	app := &App{withoutIssuers: true}
	if err := caddy.StrictUnmarshalJSON(raw, app); err != nil {
		return nil, fmt.Errorf("app %s: %w", appID, err)
	}
	for _, realm := range app.Realms {
		if realm != nil {
			realm.Issuer = nil
			if !slices.ContainsFunc(realm.ClientsFromRaw, inStorage) {
				realm.StorageRaw = nil
			}
		}
	}
	if err := app.Provision(ctx); err != nil {
		return nil, fmt.Errorf("app %s: %w", appID, err)
	}
	return explainer{app, true}, nil
}

// inStorage reports whether the source of clients is the realm's storage.
func inStorage(raw json.RawMessage) bool {
	var module struct {
		Source string `json:"source"`
	}
	return json.Unmarshal(raw, &module) == nil && module.Source == "storage"
}

// explainer implements [command.Explainer].
type explainer struct {
	app *App
	// offline is set if the app fetches nothing
	offline bool
}

func (e explainer) Explain(q command.Question, presented []*x509.Certificate) (*command.Explanation, error) {
	realm, err := e.app.realm(cmp.Or(q.Realm, defaultRealm))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	current := realm.current.apart(q.At)
	id, refusal, _ := current.Decide(ctx, presented, q.ClientID)
	explanation := &command.Explanation{Realm: realm.name, Credential: id.Credential, Matched: id.Matched, Refusal: refusal}
	if refusal != nil {
		explanation.NearMisses = current.Explain(presented, q.ClientID, refusal)
		explanation.Registrable = current.Registrable(presented, refusal)
		explanation.UnfetchedJWKS = realm.directory.Unfetched()
	}
	if e.offline && realm.revocation != nil && realm.revocation.crls != nil && (refusal != nil || id.Credential.NeedsChain()) {
		explanation.UnfetchedCRLs = realm.revocation.crls.URLs()
	}
	if realm.revocation != nil {
		explanation.Exempt = realm.revocation.exemptIssuers(presented)
	}
	explanation.Shadow = current.UnderShadow(ctx, presented, q.ClientID)
	return explanation, nil
}
