package check

import (
	"crypto/x509"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// soonExpires is how long before its end a certificate is reported, and soonEnds a
	// pin.
	soonExpires = 90 * 24 * time.Hour
	soonEnds    = 30 * 24 * time.Hour
	// maxExpiring bounds the certificate files that are reported.
	maxExpiring = 100
)

// checkTimes reports what has ended or ends soon.
func (c *checker) checkTimes() {
	now := c.app.Now()
	for _, name := range c.app.Names() {
		realm := c.app.Realms[name]()
		for _, pool := range realm.Pools {
			for _, ca := range pool.Trust().Certificates {
				c.checkCertificate("realm "+name+", "+pool.Word(), ca, now)
			}
		}
		files, more := realm.Directory.CertificateFiles(time.Time{}, now.Add(soonExpires), maxExpiring)
		for _, file := range files {
			c.checkCertificate("realm "+name+", client "+file.ClientID, file.Certificate, now)
		}
		if more > 0 {
			c.findings.Add(CodeExpires, "realm "+name, "%d more certificates in files have expired or expire within 90 days", more)
		}
		for client := range realm.Directory.Registry().All() {
			for i := range client.Credentials {
				cred := &client.Credentials[i]
				if end := cred.Until(); end.After(now) && end.Before(now.Add(soonEnds)) {
					c.findings.Add(CodePinEnds, "realm "+name+", client "+client.ID, "%s '%s' counts until %s", cred.Kind, cred.Value, end.UTC().Format(time.RFC3339))
				}
			}
		}
	}
}

func (c *checker) checkCertificate(place string, cert *x509.Certificate, now time.Time) {
	end, subject := cert.NotAfter.UTC().Format(time.RFC3339), dn.Format(cert.RawSubject)
	switch {
	case string(cert.RawSubject) == string(anyCA().RawSubject):
	case cert.NotAfter.Before(now):
		c.findings.Add(CodeExpired, place, "the certificate of %s has expired at %s", subject, end)
	case cert.NotAfter.Before(now.Add(soonExpires)):
		c.findings.Add(CodeExpires, place, "the certificate of %s expires at %s", subject, end)
	}
}
