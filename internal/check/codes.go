package check

import "strings"

// Rule is what a code stands for.
type Rule struct {
	Severity Severity
	// Meaning is a sentence for the documentation.
	Meaning string
	// Remedy is what to do, unless the finding has its own.
	Remedy string
}

// The codes that the load's own warnings do not have.
const (
	codeLoad    = "load_error"
	codeWarning = "load_warning"
	codeFailed  = "source_failed"

	// CodeUnread is for what is not read here, because it needs the network or storage.
	CodeUnread = "not_checked"
	// CodeExpired is for a certificate that has expired.
	CodeExpired = "certificate_expired"
	// CodeExpires is for a certificate that expires soon.
	CodeExpires = "certificate_expires"
	// CodePinEnds is for pins whose `until` is near.
	CodePinEnds = "pin_ends"
	// CodeUnused is for a realm that no directive uses.
	CodeUnused = "realm_unused"
	// CodeNowhere is for a client that no directive admits.
	CodeNowhere = "client_admitted_nowhere"
	// CodePlaceholder is for a client with the ID of a block that was not filled in.
	CodePlaceholder = "client_id_placeholder"
	// CodeReportOnly is for a directive that refuses nobody.
	CodeReportOnly = "report_only"
	// CodeAdmin is for an admin endpoint that others can reach.
	CodeAdmin = "admin_exposed"
)

// Codes are the codes of findings.
var Codes = map[string]Rule{
	codeLoad:        {Error, "The configuration does not load", ""},
	codeWarning:     {Warning, "Another warning of the load", "See the page about log messages."},
	codeFailed:      {Error, "A source is broken", "Mend it, or the realm goes on with what it had, or with nothing."},
	CodeUnread:      {Note, "Something was not read, because that needs the network or storage, so nothing is said about it", ""},
	CodeExpired:     {Error, "A certificate has expired", "Replace it."},
	CodeExpires:     {Warning, "A certificate expires within 90 days", "Replace it in time."},
	CodePinEnds:     {Warning, "A pin counts for less than 30 days more", "Declare the certificate that replaces it, or extend until."},
	CodeUnused:      {Warning, "No directive and no verifier uses the realm", "Use it, or remove it."},
	CodeNowhere:     {Warning, "No directive admits the client", "Add it to allow, give it the scope of require_scope, or remove it."},
	CodePlaceholder: {Warning, "A client has the ID CHANGE-ME, as in the block that registers a stranger", "Put the client's ID in its place."},
	CodeReportOnly:  {Note, "A directive refuses nobody, because it has report_only", "Remove report_only once the log has shown whom it would refuse."},
	CodeAdmin:       {Warning, "The admin endpoint listens on more than the loopback interface", "Whoever reaches it can add clients and rotate keys: bind it to localhost or a Unix socket, or use remote administration with client certificates."},

	"no_clients":             {Warning, "The realm has no clients", "Declare a client, or add clients_from."},
	"allow_unmatched":        {Warning, "A pattern of allow matches no client", "Check its spelling."},
	"scope_unmatched":        {Warning, "No client has a scope of require_scope", "Check its spelling, or register a client for it."},
	"claim_unmatched":        {Warning, "header_up sends a claim that no client has", "Check the spelling of the claim."},
	"audience_unmatched":     {Warning, "No token can have an audience of mtls_bearer", "Use an audience or a resource of the issuer."},
	"client_id_not_sent":     {Warning, "header_up does not send the client ID", "Add 'header_up X-Client-ID {http.mtls.client_id}', unless the API needs no client."},
	"weak_pin":               {Warning, "A thumbprint is SHA-1, which can be forged", "Replace it with the SHA-256 thumbprint."},
	"pin_ended":              {Warning, "The until of a pin has passed", "Remove the pin."},
	"client_suspicious":      {Warning, "Something about a client is odd", ""},
	"client_refused":         {Warning, "A record is not in force, because a source of a higher rank has its ID or a credential", "Remove one of the two."},
	"source_suspicious":      {Warning, "Something about a source of clients is odd", ""},
	"certificate_left_out":   {Warning, "A certificate of a trust pool cannot be read", "Remove it, or have its CA issue it again."},
	"ca_unusable":            {Warning, "No client can verify under a CA of a trust pool", ""},
	"issued_by_missing":      {Warning, "Any of several CAs can issue the clients' names", "Add issued_by to the clients."},
	"crl_suspicious":         {Warning, "A CRL vouches for nothing, or a CA has none", ""},
	"exempt_unmatched":       {Warning, "An exempt hash is that of no CA in the trust pool", ""},
	"key_left_out":           {Warning, "A key of verify_key or of a trusted issuer does not count", "Replace the key."},
	"announce_for_short":     {Warning, "A signing key is announced for less time than some libraries keep keys", "Make announce_for 12h or longer, unless no API verifies tokens with such a library; docs/signing-keys.md has a table."},
	"unbound_tokens":         {Warning, "Tokens that are not bound to a certificate are admitted", "Remove allow_unbound once the server binds its tokens."},
	"certificate_not_asked":  {Warning, "A site never asks for a certificate, so its directive refuses everybody", "Add 'tls { client_auth { mode request } }' to the site."},
	"plain_http":             {Warning, "A site is plain HTTP, which has no certificates", "Serve the site over HTTPS."},
	"verified_in_handshake":  {Warning, "Caddy refuses certificates in the handshake, where callers learn no reason", "Use 'mode request'."},
	"metadata_needs_a_cert":  {Warning, "The issuer's metadata and keys need a certificate", "Use 'mode request', or mtls_alias."},
	"issuer_not_served":      {Warning, "No site serves the issuer's host", "Add a site for it with mtls_issuer."},
	"verifier_and_proxies":   {Warning, "The verifier refuses proxies that are trusted by address alone", "Add their peer_key."},
	"paths_open":             {Warning, "A handler serves requests that the directive does not see", "Put the directive on the whole site, or in the handle of that handler."},
	"rewrite_before_matcher": {Warning, "A matcher sees the path only after a rewrite, so requests can get past the directive", "Put the directive before the rewrite, or on the whole site."},
	"directive_not_reached":  {Warning, "A handler before the directive answers every request", "Move the directive before it."},
	"two_realms":             {Warning, "Two realms must both admit a request", "Use one realm, or a handle for each."},
	"status_page_open":       {Warning, "The status page is open to everybody", "Put mtls_auth or basic_auth before it, or bind the site to the loopback interface."},
}

// messages has the code of each warning that the load can log. Those about clients, which
// have no constant message, are in [codeOf].
var messages = map[string]string{
	"realm has no clients; everyone is refused":                                                        "no_clients",
	"allow matches no client":                                                                          "allow_unmatched",
	"require_scope matches no client":                                                                  "scope_unmatched",
	"header_up sends a claim that no client has":                                                       "claim_unmatched",
	"no token of the realm can have the audience":                                                      "audience_unmatched",
	"header_up does not send the client id":                                                            "client_id_not_sent",
	"client source has no clients":                                                                     "source_suspicious",
	"files in clients folder ignored":                                                                  "source_suspicious",
	"connection to PostgreSQL is not verified":                                                         "source_suspicious",
	"client source failed; keeping previous clients":                                                   codeFailed,
	"client record skipped; it is wrong":                                                               "client_suspicious",
	"more client records skipped":                                                                      "client_suspicious",
	"certificate in JWKS ignored; it fits a credential of another client":                              "client_suspicious",
	"certificate in the JWKS of several clients is ambiguous":                                          "client_suspicious",
	"client record refused; a source of a higher rank has its client_id or credential":                 "client_refused",
	"more client records refused":                                                                      "client_refused",
	"certificate left out of trust pool":                                                               "certificate_left_out",
	"more certificates left out of trust pool":                                                         "certificate_left_out",
	"no client can verify under CA of trust pool":                                                      "ca_unusable",
	"no client can verify under more CAs of trust pool":                                                "ca_unusable",
	"trust pool has several CAs that can each issue the clients' names; add issued_by":                 "issued_by_missing",
	"stale CRL no longer vouches for any certificate":                                                  "crl_suspicious",
	"CRL counts for what it lists but vouches for no certificate":                                      "crl_suspicious",
	"CRL has the name of a CA in the trust pool but does not cover its certificates":                   "crl_suspicious",
	"no CRL covers a CA of the trust pool":                                                             "crl_suspicious",
	"exempt hash is that of no CA in the trust pool":                                                   "exempt_unmatched",
	"verification key left out":                                                                        "key_left_out",
	"key is announced for less time than some libraries keep keys":                                     "announce_for_short",
	"keys of issuer left out":                                                                          "key_left_out",
	"allow_unbound admits tokens that are not bound to a certificate":                                  "unbound_tokens",
	"site requests no client certificates; add 'tls { client_auth { mode request } }'":                 "certificate_not_asked",
	"plain HTTP has no client certificates; serve the site over HTTPS":                                 "plain_http",
	"site verifies certificates in the handshake, where callers learn no reason; use 'mode request'":   "verified_in_handshake",
	"issuer's site requires a certificate for metadata and keys; use 'mode request' or mtls_alias":     "metadata_needs_a_cert",
	"no site of this server serves the issuer's host":                                                  "issuer_not_served",
	"the verifier refuses certificates of proxies that are trusted only by 'from'; add their peer_key": "verifier_and_proxies",
	"site is partly open":                                                                              "paths_open",
	"path matcher sees the path after a rewrite":                                                       "rewrite_before_matcher",
	"directive is never reached":                                                                       "directive_not_reached",
	"status page is open to everyone":                                                                  "status_page_open",
	"two realms must both admit a request":                                                             "two_realms",
}

// Messages returns the warnings that have a code.
func Messages() map[string]string { return messages }

// codeOf returns the code of a warning.
func codeOf(message string) string {
	switch code := messages[message]; {
	case code != "":
		return code
	case strings.Contains(message, "SHA-1"):
		return "weak_pin"
	case strings.Contains(message, " ended"):
		return "pin_ended"
	case strings.HasPrefix(message, "client '"), strings.Contains(message, "clients"):
		return "client_suspicious"
	}
	return codeWarning
}
