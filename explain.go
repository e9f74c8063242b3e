package mtlsauth

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/command"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
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

// maxExplainBody bounds the certificates in a request, in bytes.
const maxExplainBody = 256 << 10

// explainCertificate answers what the realm decides about the certificates in a request,
// as the client would present them.
func explainCertificate(w http.ResponseWriter, r *http.Request, realm *Realm) error {
	q := command.Question{Realm: realm.name, At: realm.app.Now()}
	if err := clientsapi.EachParameter(r.URL.RawQuery, func(name, value string) error {
		if name != "client_id" || value == "" {
			return adminError(http.StatusBadRequest, "unknown parameter %.100q; the only one is client_id, which names one", name)
		}
		q.ClientID = value
		return nil
	}); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxExplainBody+1))
	switch {
	case err != nil:
		return adminError(http.StatusBadRequest, "reading the body: %w", err)
	case len(body) > maxExplainBody:
		return adminError(http.StatusRequestEntityTooLarge, "the body has more than %d bytes; send the certificate and those above it alone", maxExplainBody)
	}
	presented, unreadable, err := certfile.ParsePEM(body)
	if err != nil {
		return adminError(http.StatusBadRequest, "the body is not a certificate: %w", err)
	}
	explanation, err := explainer{app: realm.app}.Explain(q, presented)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return explanation.WriteJSON(w, presented[0], unreadable)
}
