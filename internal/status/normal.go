package status

import "time"

// The names of sources of which a realm has one.
const (
	SourceSigningKeys   = "keys"
	SourceRevokedTokens = "revocations"
	SourceDeny          = "deny"
)

// Kind is a kind of [Source].
type Kind struct {
	// Label is what its sources are called, with what differs in angle brackets.
	Label string
	// Normal is how old the last success of a source in order gets at most, zero if it
	// does not age.
	Normal time.Duration
	// Setting is the option that says otherwise, "" if none does.
	Setting string
}

// Kinds are all kinds of sources, as they are if nothing is configured. Sources say
// themselves what is configured.
var Kinds = []Kind{
	{Label: "clients:<path>", Normal: time.Second},
	{Label: "clients:storage", Normal: 3 * time.Second},
	{Label: "clients:postgres:<host>:<port>/<database>/<table>", Normal: 10 * time.Second, Setting: "refresh"},
	{Label: "clients:http:<url>", Normal: time.Minute, Setting: "refresh"},
	{Label: "certificate:<file>", Normal: time.Second},
	{Label: "jwks:<client_id> (file)", Normal: time.Second},
	{Label: "jwks:<client_id> (URL)", Normal: time.Hour, Setting: "Cache-Control"},
	{Label: "jwks:<issuer>", Normal: time.Hour, Setting: "Cache-Control"},
	{Label: "trust_pool", Normal: time.Second},
	{Label: "trust_pool (not a file)", Normal: time.Hour, Setting: "trust_pool_refresh"},
	{Label: "shadow_trust_pool", Normal: time.Second},
	{Label: "shadow_trust_pool (not a file)", Normal: time.Hour, Setting: "trust_pool_refresh"},
	{Label: "fetch trust_pool", Normal: time.Second},
	{Label: "fetch trust_pool (not a file)", Normal: time.Hour, Setting: "trust_pool_refresh"},
	{Label: "crl:<file>", Normal: time.Second},
	{Label: "crl:<url>", Normal: time.Hour, Setting: "refresh"},
	{Label: SourceDeny, Normal: time.Second},
	{Label: SourceSigningKeys, Normal: 30 * time.Second, Setting: "announce_for"},
	{Label: SourceRevokedTokens, Normal: 5 * time.Second},
}

// slack is how much older than normal a source may be before it is late, besides a tenth
// of the normal age: reading takes its time, and a failure may end by itself.
const slack = 30 * time.Second

// Judge sets [Source.Normal] and [Source.Late] of a source that was last read at its
// LastSuccess. normal is zero if it does not age, or if that is not known. Less than a
// second counts as one.
func (s *Source) Judge(normal time.Duration, now time.Time) {
	if normal > 0 {
		normal = max(normal, time.Second)
	}
	s.Normal = normal.Seconds()
	s.Late = s.LastSuccess.IsZero() || normal > 0 && now.Sub(s.LastSuccess) > normal+normal/10+slack
}
