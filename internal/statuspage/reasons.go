package statuspage

import (
	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

// whoOf says who was refused.
func whoOf(r refusals.Record) string {
	switch {
	case r.ClientID != "" && !r.Claimed:
		return shown(r.ClientID)
	case r.Certificate != nil && r.Certificate.Subject != "":
		return shown(r.Certificate.Subject)
	case r.Certificate != nil:
		return short(r.Certificate.Thumbprint)
	}
	return "no certificate"
}

// register says what to do with the block that registers a certificate of a realm.
func register(realm string) []string {
	before, paste := reasons.Register(shown(realm))
	return []string{before, paste}
}

// sentence says what a reason means, or "" if it is unknown.
func sentence(reason string) string {
	text, _ := reasons.Of(reason)
	return text.Plain().Sentence
}

// remedy says what to do about a refusal for a reason, or "" if it is unknown.
func remedy(reason string) string {
	text, _ := reasons.Of(reason)
	return text.Plain().Remedy
}
