package clientsapi

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/mergepatch"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// maxAudited bounds each of before and after in an audit line, and maxAuditedError
	// and maxAuditedID what a caller chooses, in bytes. No record is cut, because one
	// long member could hide what another has become.
	maxAudited      = 4 * maxRecord
	maxAuditedError = 1 << 10
	maxAuditedID    = 256
)

// audit writes the line about a change, or about one that was refused.
func (c *change) audit(r *http.Request, err error) {
	fields := append(who(r), zap.String("action", c.action), zap.String("client_id", source.Text(c.id, maxAuditedID)))
	if c.writer != nil {
		fields = append(fields, zap.String("source", c.writer.Info().Name))
	}
	if err != nil && !c.stored {
		c.realm.Logger.Warn("client change refused", append(fields, failure(err)...)...)
		return
	}
	before, after := differences(c.before, c.after)
	if before != nil {
		fields = append(fields, zap.String("before", source.Text(string(before), maxAudited)))
	}
	if after != nil {
		fields = append(fields, zap.String("after", source.Text(string(after), maxAudited)))
	}
	if err != nil {
		c.realm.Logger.Error("client change not in force", append(fields, failure(err)...)...)
		return
	}
	c.realm.Logger.Info("client changed", fields...)
}

// failure returns the fields that say why a request has failed.
func failure(err error) []zap.Field {
	return []zap.Field{zap.Int("status", statusOf(err)), zap.String("error", source.Plain(err, maxAuditedError))}
}

// who returns the fields that say who sent a request: the certificate that Caddy's
// remote admin endpoint has verified, and the address.
func who(r *http.Request) []zap.Field {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr // of a Unix socket
	}
	fields := []zap.Field{zap.String("remote_ip", address)}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		leaf := r.TLS.PeerCertificates[0]
		fields = append(fields, zap.String("admin", validators.FormatDN(leaf.RawSubject)),
			zap.String("admin_thumbprint", validators.ThumbprintOf(leaf.Raw).String()))
	}
	return fields
}

// differences returns those members of two records that are not the same, or all of
// one if there is no other.
func differences(before, after *view) (was, is []byte) {
	switch {
	case before == nil && after == nil: // nothing has been decided
		return nil, nil
	case before == nil:
		return nil, after.shown
	case after == nil:
		return before.shown, nil
	}
	var old, changed map[string]json.RawMessage
	if json.Unmarshal(before.shown, &old) != nil || json.Unmarshal(after.shown, &changed) != nil {
		return before.shown, after.shown
	}
	for name, value := range old {
		hidden := name == memberJWKSURI && before.uri != after.uri
		if bytes.Equal(value, changed[name]) && !hidden { // both are canonical
			delete(old, name)
			delete(changed, name)
		}
	}
	return encoded(old), encoded(changed)
}

func encoded(members map[string]json.RawMessage) []byte {
	text, err := json.Marshal(members)
	if err != nil {
		return nil
	}
	if text, err = mergepatch.Canonical(text); err != nil { // without escapes of HTML
		return nil
	}
	return text
}
