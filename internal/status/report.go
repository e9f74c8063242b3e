// Package status describes the state of the realms for the people who run them. The
// status page, the admin API and the command line all show the same [Report].
package status

import (
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

// Report is the state of all realms of this Caddy at one moment.
type Report struct {
	At time.Time `json:"at"`
	// Since is when this Caddy began to remember what the report is about, in the realm
	// that it has known for the longest. A reload changes nothing about that.
	Since time.Time `json:"since"`
	// Version is that of the plugin.
	Version string  `json:"version"`
	Realms  []Realm `json:"realms"`
	// Sources are those of no realm: the keys of the servers in `trust_issuer`.
	Sources []Source `json:"sources,omitempty"`
	// Refusals are the last ones of no realm, by `mtls_bearer` without one, newest first.
	Refusals []refusals.Record `json:"refusals,omitempty"`
}

// Realm is the state of a realm.
type Realm struct {
	Name string `json:"realm"`
	// Since is when this Caddy began to remember what happens in the realm. It forgets
	// that when the realm is removed, and when Caddy ends.
	Since   time.Time `json:"since"`
	Traffic Traffic   `json:"traffic"`
	// Expiring are the certificates that expire within [ExpiringWithin], soonest first.
	Expiring     []Expiring `json:"expiring"`
	MoreExpiring int        `json:"more_expiring,omitempty"`
	Clients      Clients    `json:"clients"`
	// Strangers are refused certificates of nobody, the last one first.
	Strangers     []refusals.Stranger `json:"strangers"`
	MoreStrangers int                 `json:"more_strangers,omitempty"`
	// Refusals are the last ones, newest first.
	Refusals []refusals.Record `json:"refusals"`
	// Shadow is nil without a shadow trust pool.
	Shadow *Shadow `json:"shadow,omitempty"`
	// Issuer is nil if the realm has none.
	Issuer  *Issuer  `json:"issuer,omitempty"`
	Sources []Source `json:"sources"`
}

// ExpiringWithin is how far the report looks ahead for certificates that expire.
const ExpiringWithin = 90 * 24 * time.Hour

// Traffic counts the decisions of the last hour. Each Series has a number for every
// minute, the oldest first; the last one is the current minute.
type Traffic struct {
	// Minutes is how many minutes have been observed, at most 60.
	Minutes  int    `json:"minutes"`
	Admitted Series `json:"admitted"`
	Refused  Series `json:"refused"`
	// Reasons are the refusals by reason, those of tokens included, the most frequent first.
	Reasons []Reason `json:"reasons"`
	Tokens  Series   `json:"tokens_issued"`
}

// Series counts something by the minute.
type Series struct {
	Total  uint64   `json:"total"`
	Minute []uint64 `json:"minute"`
}

// Reason counts the refusals for one reason.
type Reason struct {
	Reason string `json:"reason"`
	Series
	// ReportOnly is how many of the Total were passed on nevertheless.
	ReportOnly uint64 `json:"report_only,omitempty"`
}

// The kinds of [Expiring].
const (
	ExpiringClient = "client"
	ExpiringCA     = "ca"
	ExpiringShadow = "shadow_ca"
	ExpiringFetch  = "fetch_ca" // of the servers of CRLs, JWKS and clients
)

// Expiring is a certificate that expires soon.
type Expiring struct {
	// Kind is what the certificate is: that of a client, as it was last presented or as
	// its file has it, or a CA of a trust pool.
	Kind string `json:"kind"`
	// ClientID is "" for a CA.
	ClientID string `json:"client_id,omitempty"`
	// Subject is that of a CA or of a file. Of another certificate, it is known only if
	// the client was recognized by it.
	Subject    string    `json:"subject,omitempty"`
	Thumbprint string    `json:"thumbprint,omitempty"`
	NotAfter   time.Time `json:"not_after"`
}

// Clients is a page of the clients of a realm.
type Clients struct {
	Total int `json:"total"`
	// Seen is how many have been admitted since [Realm.Since].
	Seen int `json:"seen"`
	// NotNoted is how often a client was admitted without being noted, because so many
	// have been seen that there is no more room.
	NotNoted uint64   `json:"not_noted,omitempty"`
	List     []Client `json:"list"`
	// Next is the client_id after which the next page begins, "" if there is none.
	Next string `json:"next,omitempty"`
}

// Client is a registered client.
type Client struct {
	ClientID string `json:"client_id"`
	Name     string `json:"client_name,omitempty"`
	Source   string `json:"source"`
	Disabled bool   `json:"disabled,omitempty"`
	// LastSeen is when the client was last admitted, zero for never, to the minute.
	LastSeen time.Time `json:"last_seen,omitzero"`
	// Credential is the kind of credential by which it was recognized then, Matched the
	// value, and Thumbprint and NotAfter are those of its certificate.
	Credential string    `json:"credential,omitempty"`
	Matched    string    `json:"matched,omitempty"`
	Thumbprint string    `json:"thumbprint,omitempty"`
	NotAfter   time.Time `json:"not_after,omitzero"`
}

// Query says which part of a report is asked for. The zero Query asks for all realms
// and the first page of clients.
type Query struct {
	// Realm is the only one to describe, "" for all.
	Realm string
	// After is the client_id before the first of the page.
	After string
	// Text is what the client_id or name contains, in any case.
	Text string
	// Never selects the clients that have not been seen.
	Never bool
	// Limit is how many clients are listed. Default: 50.
	Limit int
	// Most is how many refusals and how many strangers are listed. Default: 20 and 50.
	Most int
}

// Shadow says who would be refused if the shadow trust pool were the trust pool.
type Shadow struct {
	Failing []ShadowFailure `json:"failing"`
	More    int             `json:"more_failing,omitempty"`
}

// ShadowFailure is a client whose certificate fails under the shadow trust pool.
type ShadowFailure struct {
	ClientID   string    `json:"client_id"`
	Subject    string    `json:"subject"`
	Thumbprint string    `json:"thumbprint"`
	NotAfter   time.Time `json:"not_after"`
	Why        string    `json:"why"`
	// Another is when the client was last admitted, if it was with another certificate.
	// A program of the client may still use this one.
	Another time.Time `json:"another_seen,omitzero"`
}

// Issuer is the state of a realm's issuer.
type Issuer struct {
	URL  string `json:"url"`
	Keys []Key  `json:"keys"`
	// NextRotation is zero if keys are not rotated.
	NextRotation time.Time `json:"next_rotation,omitzero"`
	// RevokedTokens is how many tokens are revoked and have not expired.
	RevokedTokens int `json:"revoked_tokens"`
}

// Key is a signing key.
type Key struct {
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	// State is `next`, `active`, `past` or `verify`.
	State   string    `json:"state"`
	Created time.Time `json:"created,omitzero"`
	// From is when it begins to sign, Until when it leaves the JWKS; zero if unknown.
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// Source is something that a realm reads again and again.
type Source struct {
	// Name is the label `source` of the metrics, such as `crl:/etc/ca.crl`.
	Name        string    `json:"source"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	// Normal is how old the last success of a source in order is at most, in seconds; 0
	// if that cannot be said.
	Normal float64 `json:"normal_age_seconds,omitempty"`
	// Late is set if it is older, or if the source has never been read.
	Late bool `json:"late,omitempty"`
	// Error is why it could not be read last, "" if it could.
	Error string `json:"error,omitempty"`
	// NextUpdate is when a CRL expires.
	NextUpdate time.Time `json:"next_update,omitzero"`
	// Clients is how many clients of a source of clients are in force, and Refused how
	// many of its records are not.
	Clients int `json:"clients,omitempty"`
	Refused int `json:"refused,omitempty"`
	// Copy is the last good state that is in use instead: the file of `keep_copy`,
	// `storage`, or `previous configuration`. CopyTime is from when it is.
	Copy     string    `json:"copy,omitempty"`
	CopyTime time.Time `json:"copy_time,omitzero"`
}
