package mtlsauth

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// logRefusal writes the one line that lets an operator mend a refusal. Text
// from the certificate is escaped: a stranger chose it.
func (realm *Realm) logRefusal(message string, r *http.Request, id identity, refusal *validators.Refusal, errorID string) {
	entry := realm.app.logger.Check(zap.WarnLevel, message)
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.String("realm", realm.name),
		zap.String("reason", string(refusal.Reason)),
		zap.String("detail", refusal.Detail),
		zap.String("remote_ip", remoteIP(r)),
		zap.String("host", r.Host),
		zap.String("uri", r.URL.Path),
	}
	if errorID != "" {
		fields = append(fields, zap.String("error_id", errorID))
	}
	if client := id.client(); client != nil {
		fields = append(fields, zap.String("client_id", client.ID))
	}
	if presented := presentedCertificates(r); len(presented) > 0 {
		leaf := presented[0]
		sum := sha256.Sum256(leaf.Raw)
		fields = append(fields,
			zap.String("subject", validators.FormatDN(leaf.RawSubject)),
			zap.String("issuer", validators.FormatDN(leaf.RawIssuer)),
			zap.String("serial", serialText(leaf.SerialNumber)),
			zap.String("thumbprint", hex.EncodeToString(sum[:])),
		)
		if hint := realm.auth.hint(leaf, refusal.Reason); hint != "" {
			fields = append(fields, zap.String("hint", hint))
		}
		if refusal.Reason == validators.CertificateUnknown {
			fields = append(fields, zap.String("register", registration(sum)))
		}
	}
	entry.Write(fields...)
}

// registration is the client block that would admit a certificate. It names
// nothing from the certificate but its hash, for an operator may paste it.
func registration(sum [sha256.Size]byte) string {
	return fmt.Sprintf("client \"CHANGE-ME\" {\n\tthumbprint %q\n}", hex.EncodeToString(sum[:]))
}

// serialText is the serial number in hex, of its first 20 octets: RFC 5280
// §4.1.2.2 allows no more, but a stranger may.
func serialText(serial *big.Int) string { return fmt.Sprintf("%.20x", serial.Bytes()) }

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
