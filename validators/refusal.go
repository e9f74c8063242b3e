package validators

// Reason is why a client was refused, one word of a closed list, as in logs,
// metrics and the {http.mtls.error} placeholder.
type Reason string

// The closed list of refusal reasons.
const (
	// CertificateMissing means that the peer presented no certificate, or that
	// the connection is not a TLS connection.
	CertificateMissing Reason = "certificate_missing"
	// CertificateExpired means that the certificate is outside its validity period
	// (RFC 5280 §4.1.2.5).
	CertificateExpired Reason = "certificate_expired"
	// CertificateUnknown means that no registered credential matches.
	CertificateUnknown Reason = "certificate_unknown"
	// CertificateUntrusted means that no pin admits the certificate and its
	// chain does not verify, or that issued_by or require_chain is not met.
	CertificateUntrusted Reason = "certificate_untrusted"
	// CertificateRevoked means that the deny file, a CRL or an OCSP responder
	// says that a certificate of the chain has been revoked (RFC 5280 §3.3).
	CertificateRevoked Reason = "certificate_revoked"
	// RevocationUnavailable means that no source can tell whether a certificate of
	// the chain has been revoked.
	RevocationUnavailable Reason = "revocation_unavailable"
	// CertificateUnsuitable means that the certificate is not suitable for client
	// authentication (RFC 5280 §4.2.1.3, §4.2.1.9, §4.2.1.12).
	CertificateUnsuitable Reason = "certificate_unsuitable"
	// CertificateAmbiguous means that several clients match and nothing decides
	// between them.
	CertificateAmbiguous Reason = "certificate_ambiguous"
	// ClientMismatch means that the certificate does not belong to the client that
	// the request names (RFC 8705 §2).
	ClientMismatch Reason = "client_mismatch"
	// ClientDisabled means that the client is registered but disabled.
	ClientDisabled Reason = "client_disabled"
	// ClientNotAllowed means that the client is authenticated but not in the
	// directive's allow list.
	ClientNotAllowed Reason = "client_not_allowed"
	// ScopeMissing means that the client is authenticated but not registered
	// for every scope that the directive requires.
	ScopeMissing Reason = "scope_missing"
)

// ConfigurationEnded means that nothing keeps the state of the configuration up to
// date any more, because it ended before the request arrived. It says nothing about
// the caller, so it is not one of [Reasons].
const ConfigurationEnded Reason = "configuration_ended"

// The reasons for which a request is refused before anybody is authenticated. They are
// not among [Reasons] either.
const (
	// ConnectRefused means that the request would open a tunnel to the upstream.
	ConnectRefused Reason = "connect_refused"
	// TooEarly means that the request came in TLS early data, which anybody who has
	// recorded it can send again (RFC 8470).
	TooEarly Reason = "too_early"
)

// Reasons are all reasons of a decision, in a fixed order, for metrics and documentation.
var Reasons = []Reason{
	CertificateMissing, CertificateExpired, CertificateUnknown, CertificateUntrusted,
	CertificateRevoked, RevocationUnavailable, CertificateUnsuitable, CertificateAmbiguous,
	ClientMismatch, ClientDisabled, ClientNotAllowed, ScopeMissing,
}

// Refusal is the error of a failed authentication: the reason for machines, and
// the detail for the operator's log, which is never shown to the caller.
type Refusal struct {
	Reason Reason
	Detail string
}

// Error returns the reason followed by the detail.
func (r *Refusal) Error() string {
	if r.Detail == "" {
		return string(r.Reason)
	}
	return string(r.Reason) + ": " + r.Detail
}
