package clienttoken

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// connectFailure returns why no address answers.
func connectFailure(dialErr, err error) string {
	if dialErr == nil {
		dialErr = err
	}
	switch {
	case isTimeout(dialErr) || isTimeout(err):
		return "no answer in time; is the address right, and does a firewall drop packets?"
	case errors.Is(dialErr, syscall.ECONNREFUSED):
		return causeText(dialErr) + "; is the server running, and is the port right?"
	}
	return causeText(dialErr)
}

// tlsFailure returns why there is no TLS connection.
func tlsFailure(err error, host string) string {
	var unknown x509.UnknownAuthorityError
	var other x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return "the server does not speak TLS on this port; check the port"
	case errors.As(err, &other):
		return "the server's certificate " + certificateName(other.Certificate) + " is not for '" + source.Text(host, maxText) + "'; use one of its names: " + namesText(other.Certificate)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server's certificate " + certificateName(invalid.Cert) + " is valid from " + invalid.Cert.NotBefore.UTC().Format(time.RFC3339) +
			" to " + invalid.Cert.NotAfter.UTC().Format(time.RFC3339) + " only; renew it, or set this machine's clock"
	case errors.As(err, &unknown) && unknown.Cert != nil:
		return "the server's certificate " + servedName(err, unknown.Cert) + " is not trusted, because its CA '" + source.Text(dn.Format(unknown.Cert.RawIssuer), maxText) + "' is not; name the file with that CA with --cacert"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the server's certificate " + certificateName(invalid.Cert) + " is not for servers (extended key usage); have it issued with serverAuth"
	case isTimeout(err):
		return "the server accepts the connection but does not answer the TLS handshake in time; does it speak TLS on this port?"
	}
	return causeText(err)
}

// servedName returns the name of the certificate that the server sent.
func servedName(err error, otherwise *x509.Certificate) string {
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) && len(verification.UnverifiedCertificates) > 0 {
		return certificateName(verification.UnverifiedCertificates[0])
	}
	return certificateName(otherwise)
}

func certificateName(c *x509.Certificate) string {
	if text := dn.Format(c.RawSubject); text != "" {
		return "'" + source.Text(text, maxText) + "'"
	}
	return "for " + namesText(c)
}

// namesText returns the DNS names and addresses of a certificate.
func namesText(c *x509.Certificate) string {
	names := c.DNSNames
	for _, address := range c.IPAddresses {
		names = append(names, address.String())
	}
	if len(names) == 0 {
		return "(it has none)"
	}
	return source.Text(strings.Join(names, ", "), maxText)
}

// alertMark begins the text of an alert of the server, which crypto/tls does not export.
const alertMark = "remote error: tls: "

// alertOf returns the alert with which the server ended the connection, or "".
func alertOf(err error) string {
	if err == nil {
		return ""
	}
	_, alert, _ := strings.Cut(err.Error(), alertMark)
	return source.Text(alert, maxText)
}

// alertFailure returns why a server ends a handshake in which it has not asked for a
// certificate.
func alertFailure(alert, host string) string {
	text := "the server ends the handshake: " + alert
	switch alert {
	case "internal error", "unrecognized name", "handshake failure":
		return text + "; it probably has no certificate for '" + source.Text(host, maxText) + "'. Use a name that it serves"
	case "protocol version not supported":
		return text + "; it is too old to speak TLS 1.2"
	}
	return text
}

// certificateAlert returns why a server refuses the client's certificate.
func certificateAlert(alert string, leaf *x509.Certificate) string {
	switch {
	case time.Now().After(leaf.NotAfter):
		return alert + "; the certificate expired on " + leaf.NotAfter.UTC().Format(time.RFC3339)
	case strings.Contains(alert, "unknown certificate authority"):
		return alert + "; its 'client_auth' does not trust CA '" + source.Text(dn.Format(leaf.RawIssuer), maxText) + "'. With 'mode request', the realm alone decides"
	case strings.Contains(alert, "certificate"):
		return alert + "; its 'client_auth' verifies certificates, or has 'verifier mtls', whose log says why. With 'mode request', the realm decides and answers"
	}
	return alert
}

// causeText returns an error as a person would say it.
func causeText(err error) string {
	if err == nil {
		return "no reason is known"
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return source.Plain(errors.New(dns.Err), maxText)
	case isTimeout(err):
		return "timeout"
	}
	return source.Plain(err, maxText)
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
