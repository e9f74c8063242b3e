// Package refusals remembers the refusals of one realm for the people who run it: which
// request was refused for which reason, what its certificate comes close to, and which
// certificates belong to no client.
package refusals

import "time"

// Record is a refusal, as an operator sees it. Its texts are escaped and bounded: a
// stranger may have chosen them.
type Record struct {
	// ErrorID is the one that the caller got and that the log line has. A refusal whose
	// caller gets none, as in the TLS handshake, has one, too.
	ErrorID string    `json:"error_id"`
	At      time.Time `json:"at"`
	// Realm is "" for tokens of other servers in `mtls_bearer` without a realm.
	Realm string `json:"realm"`
	// Directive is what refused: `mtls_auth`, `mtls_issuer`, `mtls_bearer` or `verifier`.
	Directive string `json:"directive"`
	// Message is that of the log line, such as `client refused`.
	Message string `json:"message"`
	Reason  string `json:"reason"`
	// Detail says what exactly was wrong.
	Detail string `json:"detail"`
	// ReportOnly is set if the request was passed on nevertheless.
	ReportOnly bool `json:"report_only,omitempty"`
	// Failed is set if the server is to blame, and not the caller.
	Failed bool `json:"failed,omitempty"`
	// RemoteIP, Host and URI are empty for a refusal in the TLS handshake. With Forwarded,
	// RemoteIP is that of a proxy.
	RemoteIP  string `json:"remote_ip,omitempty"`
	Host      string `json:"host,omitempty"`
	URI       string `json:"uri,omitempty"`
	Forwarded bool   `json:"forwarded,omitempty"`
	// ClientID is the client, if it is known. With Claimed, the request only named it, and
	// anybody may have sent that.
	ClientID string `json:"client_id,omitempty"`
	Claimed  bool   `json:"client_id_claimed,omitempty"`
	// Certificate is the one that was presented, nil for none.
	Certificate *Certificate `json:"certificate,omitempty"`
	// Hint says what the certificate comes close to.
	Hint string `json:"hint,omitempty"`
	// Register is the `client` block that would register the certificate, if that would
	// help.
	Register string `json:"register,omitempty"`
	// TokenIssuer and TokenID describe the token, once it has been verified.
	TokenIssuer string `json:"token_issuer,omitempty"`
	TokenID     string `json:"token_id,omitempty"`
	// Times is how often this caller was refused for this reason by this directive since
	// First, this time included.
	Times int       `json:"times"`
	First time.Time `json:"first"`
}

// Certificate describes the certificate of a refused caller.
type Certificate struct {
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	Serial  string `json:"serial"`
	// Thumbprint is the SHA-256 of the certificate in hexadecimal, and PublicKey that of its
	// key.
	Thumbprint string    `json:"thumbprint"`
	PublicKey  string    `json:"public_key,omitempty"`
	Names      []string  `json:"names,omitempty"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
}

// Stranger is a certificate that was refused lately as unknown or untrusted.
type Stranger struct {
	Certificate
	// Reason, Detail, RemoteIP, ErrorID, Hint and Register are those of the last refusal.
	Reason   string    `json:"reason"`
	Detail   string    `json:"detail"`
	RemoteIP string    `json:"remote_ip,omitempty"`
	ErrorID  string    `json:"error_id"`
	Hint     string    `json:"hint,omitempty"`
	Register string    `json:"register,omitempty"`
	Times    int       `json:"times"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// Query selects refusals. The zero Query selects all.
type Query struct {
	ClientID string
	Reason   string
	// Since is the time of the oldest one.
	Since time.Time
	// Limit is how many are returned, the newest first.
	Limit int
}
