package clients

import (
	"slices"

	"go.uber.org/zap"
)

// Conflict is a certificate in the JWKS of a client that does not count, because
// it fits a credential that an operator declared for another client. A JWKS lists
// whatever its owner likes.
type Conflict struct {
	Client *Client
	// Thumbprint is the SHA-256 thumbprint of the certificate, in hex.
	Thumbprint string
	// Holder is the credential of the other client.
	Holder *Credential
}

// less sorts conflicts by certificate. One without a client comes before all others.
func (c Conflict) less(other Conflict) bool {
	if c.Thumbprint != other.Thumbprint || c.Client == nil || other.Client == nil {
		return c.Thumbprint < other.Thumbprint || c.Thumbprint == other.Thumbprint && c.Client == nil && other.Client != nil
	}
	return c.Client.ID < other.Client.ID
}

// Ambiguity is a certificate in the JWKS of several clients that do not all have
// SharedCredential. It authenticates none of them by itself.
type Ambiguity struct {
	// Thumbprint is the SHA-256 thumbprint of the certificate, in hex.
	Thumbprint string
	// ClientIDs are the identifiers of the clients, sorted.
	ClientIDs []string
}

func (a Ambiguity) less(other Ambiguity) bool { return a.Thumbprint < other.Thumbprint }

// ConflictLog reports the conflicts and ambiguities of registries that replace each other,
// each once. It has those that have been reported.
type ConflictLog struct {
	conflicts   map[conflictKey]struct{}
	ambiguities map[string]Ambiguity // by thumbprint
	assessed    *assessment
}

type conflictKey struct{ thumbprint, clientID, holderID string }

// Update logs the conflicts and ambiguities of a registry that are new, and the
// ambiguities that are over.
func (r *ConflictLog) Update(logger *zap.Logger, registry *Registry) {
	if registry.assessed == r.assessed {
		return
	}
	before := *r
	*r = ConflictLog{make(map[conflictKey]struct{}), make(map[string]Ambiguity), registry.assessed}
	for _, c := range registry.Conflicts() {
		key := conflictKey{c.Thumbprint, c.Client.ID, c.Holder.Client.ID}
		r.conflicts[key] = struct{}{}
		if _, reported := before.conflicts[key]; !reported {
			logger.Error("certificate in JWKS ignored; it fits a credential of another client",
				zap.String("client_id", c.Client.ID), zap.String("holder", c.Holder.Client.ID),
				zap.String("credential", string(c.Holder.Kind)), zap.String("thumbprint", c.Thumbprint))
		}
	}
	for _, a := range registry.allAmbiguities() {
		r.ambiguities[a.Thumbprint] = a
		if !slices.Equal(before.ambiguities[a.Thumbprint].ClientIDs, a.ClientIDs) {
			logger.Error("certificate in the JWKS of several clients is ambiguous",
				zap.Strings("client_ids", a.ClientIDs), zap.String("thumbprint", a.Thumbprint))
		}
	}
	for thumbprint, a := range before.ambiguities {
		if _, still := r.ambiguities[thumbprint]; !still {
			logger.Info("certificate no longer in the JWKS of several clients",
				zap.Strings("client_ids", a.ClientIDs), zap.String("thumbprint", a.Thumbprint))
		}
	}
}
