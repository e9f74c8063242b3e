package mtlsauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

const (
	// revokedPoll is how soon a node learns of the tokens that other nodes
	// have revoked.
	revokedPoll = 5 * time.Second
	// revokedTimeout bounds one look at storage.
	revokedTimeout = 30 * time.Second
	// revokedFirst bounds the look that a start or a reload waits for.
	revokedFirst = 10 * time.Second
)

// serveIntrospection answers what a token is worth (RFC 7662 §2).
func (h *IssuerHandler) serveIntrospection(w http.ResponseWriter, r *http.Request) {
	query, from, ok := h.tokenQuery(w, r)
	if !ok {
		return
	}
	client := from.Client()
	answer, failure := from.decidedBy.issuer.Introspect(r.Context(), tokens.Introspector{ClientID: client.ID, Resources: client.Introspect}, query.Token)
	if failure != nil {
		h.refuseToken(w, r, client.ID, failure)
		return
	}
	if answer.Token != nil {
		h.realm.metrics.Active.Inc()
	} else {
		h.realm.metrics.Inactive.Inc()
		h.logToken(r, "token inactive", client.ID, "", answer.Cause)
	}
	tokens.WriteIntrospection(w, answer)
}

// serveRevocation revokes a token of the client (RFC 7009 §2).
func (h *IssuerHandler) serveRevocation(w http.ResponseWriter, r *http.Request) {
	query, from, ok := h.tokenQuery(w, r)
	if !ok {
		return
	}
	client := from.Client()
	result, failure := from.decidedBy.issuer.Revoke(r.Context(), client.ID, query.Token)
	if failure != nil {
		h.refuseToken(w, r, client.ID, failure)
		return
	}
	if result.Cause == nil {
		h.realm.metrics.Revoked.Inc()
		h.logToken(r, "token revoked", client.ID, result.TokenID, nil)
	} else {
		h.realm.metrics.RevocationIgnored.Inc()
		h.logToken(r, "no token revoked", client.ID, "", result.Cause)
	}
	tokens.WriteRevoked(w)
}

// tokenQuery reads a request about a token and authenticates who sends it. If
// that fails it answers, and ok is false.
func (h *IssuerHandler) tokenQuery(w http.ResponseWriter, r *http.Request) (query tokens.TokenQuery, from tokenCaller, ok bool) {
	from, ok = h.authenticateCaller(w, r, func() (string, *tokens.Error) {
		var failure *tokens.Error
		query, failure = tokens.ParseTokenQuery(r)
		return query.ClientID, failure
	})
	return query, from, ok
}

// logToken writes what became of a token that a client asked about. The line
// never holds the token.
func (h *IssuerHandler) logToken(r *http.Request, message, clientID, tokenID string, cause error) {
	entry := h.app.logger.Check(zap.InfoLevel, message)
	if entry == nil {
		return
	}
	fields := []zap.Field{zap.String("realm", h.realm.name), zap.String("client_id", clientID), zap.String("remote_ip", remoteIP(r)), zap.String("uri", r.URL.Path)}
	if tokenID != "" {
		fields = append(fields, zap.String("jti", tokenID))
	}
	if refusal := new(tokens.TokenError); errors.As(cause, &refusal) {
		fields = append(fields, zap.String("reason", string(refusal.Reason)), zap.String("detail", refusal.Detail))
	}
	entry.Write(fields...)
}

// checkResources holds what the clients say of resources against the issuer,
// which is nil if the realm has none. Of several errors it returns the one of
// the first client.
func checkResources(registry *clients.Registry, issuer *tokens.Issuer) error {
	var first *clients.Client
	var wrong error
	for client := range registry.All() {
		if len(client.Resources)+len(client.Introspect) == 0 || first != nil && first.ID < client.ID {
			continue
		}
		if err := checkResourcesOf(client, issuer); err != nil {
			first, wrong = client, fmt.Errorf("client '%s': %w", client.ID, err)
		}
	}
	return wrong
}

func checkResourcesOf(client *clients.Client, issuer *tokens.Issuer) error {
	const noIssuer = "%s '%s': the realm has no issuer, so there are no tokens; add one or remove the word"
	switch {
	case issuer == nil && len(client.Introspect) > 0:
		return fmt.Errorf(noIssuer, "introspect", client.Introspect[0])
	case issuer == nil:
		return fmt.Errorf(noIssuer, "resources", client.Resources[0])
	}
	for _, resource := range client.Resources {
		if !issuer.IsResource(resource) {
			return fmt.Errorf("resources '%s': the issuer has no such resource; declare it with 'resource %s { … }', or correct the name", resource, resource)
		}
	}
	for _, audience := range client.Introspect {
		if !issuer.IsAudience(audience) {
			return fmt.Errorf("introspect '%s': no token of the issuer is for it; declare it as a resource or audience, or correct the name", audience)
		}
	}
	return nil
}

// loadRevocations reads which tokens have been revoked, without changing
// anything: a configuration may be provisioned only to validate it.
func (realm *Realm) loadRevocations(issuer string) (*tokens.Revocations, error) {
	logger := realm.app.logger
	var before *tokens.Revocations
	if running := realm.running(); running != nil && running.authority != nil {
		before = running.authority.revocations
	}
	list, err := tokens.NewRevocations(tokens.RevocationsConfig{
		Storage: realm.storage, Realm: realm.name, Issuer: issuer, Now: realm.app.Now,
		Report: func(event, key string, err error) {
			logger.Error("revoked token in storage", zap.String("realm", realm.name), zap.String("event", event), zap.String("key", key), zap.Error(err))
		},
	}, before)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(realm.app.ctx, revokedFirst)
	defer cancel()
	if err := list.Load(within); err != nil {
		realm.reportRevocations(list, err)
	}
	return list, nil
}

func (realm *Realm) reportRevocations(list *tokens.Revocations, err error) {
	consequence := "what is known of them stays in force"
	if !list.Known() {
		consequence = "until that works every token counts as revoked"
	}
	realm.app.logger.Error("reading the revoked tokens from storage; "+consequence, zap.String("realm", realm.name), zap.Error(err))
}

// keepRevocations learns of the tokens that other nodes have revoked, and
// removes from storage what has expired. A failure is logged when it begins.
func (realm *Realm) keepRevocations(ctx context.Context) {
	list := realm.authority.revocations
	ticker := time.NewTicker(revokedPoll)
	defer ticker.Stop()
	failing := false
	for {
		within, cancel := context.WithTimeout(ctx, revokedTimeout)
		err := list.Refresh(within)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			realm.reportRevocations(list, err)
		case err == nil && failing:
			realm.app.logger.Info("the revoked tokens can be read from storage again", zap.String("realm", realm.name))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
