package mtlsauth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxLoggedNames is how many alternative names of a certificate are logged.
const maxLoggedNames = 8

// logRefusal writes the one line that lets an operator mend a refusal. Text
// from the certificate is escaped: a stranger chose it.
func (realm *Realm) logRefusal(message string, r *http.Request, presented []*x509.Certificate, id identity, refusal *validators.Refusal, errorID string, more ...zap.Field) {
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
	if realm.forwarded.trusts(r) {
		fields = append(fields, zap.Bool("forwarded", true)) // and remote_ip is the proxy's
	}
	if errorID != "" {
		fields = append(fields, zap.String("error_id", errorID))
	}
	if client := id.Client(); client != nil {
		fields = append(fields, zap.String("client_id", client.ID))
	}
	if len(presented) > 0 {
		fields = append(fields, realm.certificateFields(presented, refusal)...)
	}
	entry.Write(append(fields, more...)...)
}

// certificateFields describe a refused certificate, the first of those presented.
func (realm *Realm) certificateFields(presented []*x509.Certificate, refusal *validators.Refusal) []zap.Field {
	leaf := presented[0]
	sum := sha256.Sum256(leaf.Raw)
	fields := []zap.Field{
		zap.String("subject", validators.FormatDN(leaf.RawSubject)),
		zap.String("issuer", validators.FormatDN(leaf.RawIssuer)),
		zap.String("serial", validators.FormatSerial(leaf.SerialNumber)),
		zap.String("thumbprint", hex.EncodeToString(sum[:])),
	}
	if names := loggedNames(leaf); len(names) > 0 {
		fields = append(fields, zap.Strings("names", names))
	}
	if refusal.Hint != "" {
		fields = append(fields, zap.String("hint", refusal.Hint))
	}
	// mtls_bearer may take tokens of other servers alone, who have the clients
	if current := realm.current.Load(); current != nil && current.Registrable(leaf, refusal.Reason) {
		fields = append(fields, zap.String("register", registration(sum)))
	}
	return fields
}

// loggedNames are the first alternative names of a certificate, as they would be
// declared.
func loggedNames(cert *x509.Certificate) (names []string) {
	shown, err := validators.ShowNames(cert)
	if err != nil {
		return nil
	}
	for _, name := range shown {
		if name.Kind == "" {
			continue
		}
		if len(names) == maxLoggedNames {
			return append(names, "…")
		}
		names = append(names, string(name.Kind)+" "+name.Text)
	}
	return names
}

// registration is the client block that would admit a certificate. It names
// nothing from the certificate but its hash, for an operator may paste it.
func registration(sum [sha256.Size]byte) string {
	return fmt.Sprintf("client \"CHANGE-ME\" {\n\tthumbprint %q\n}", hex.EncodeToString(sum[:]))
}

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
