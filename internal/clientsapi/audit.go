package clientsapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/mergepatch"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// maxAudited bounds each of before and after in an audit line, and maxAuditedError
	// and maxAuditedID what a caller chooses, in bytes. No record is cut, because one
	// long member could hide what another has become.
	maxAudited      = 4 * maxRecord
	maxAuditedError = 1 << 10
	maxAuditedID    = 256
)

// Changed is a change of a client: who has made it, and what has changed. It contains no
// secrets.
type Changed struct {
	ClientID string
	// Action is `put`, `patch` or `delete`.
	Action string
	// Source is the name of the source that was written to.
	Source string
	// Members are those of the record that differ, in alphabetical order.
	Members []string
	// InForce is false if the change was stored, or may have been, but is not in force.
	InForce bool
	// By is who has made the change.
	By Sender
}

// Sender is who has sent a request.
type Sender struct {
	RemoteIP string
	// Certificate and Thumbprint are those of the certificate that Caddy's remote admin
	// endpoint has verified, "" if there is none.
	Certificate, Thumbprint string
}

// audit writes the line about a change, or about one that was refused.
func (c *change) audit(r *http.Request, err error) {
	by := senderOf(r)
	fields := append(by.fields(), zap.String("action", c.action), zap.String("client_id", source.Text(c.id, maxAuditedID)))
	if c.writer != nil {
		fields = append(fields, zap.String("source", c.writer.Info().Name))
	}
	if err != nil && !c.stored {
		c.realm.Logger.Warn("client change refused", append(fields, failure(err)...)...)
		return
	}
	before, after := differences(c.before, c.after)
	if c.realm.Changed != nil {
		c.realm.Changed(Changed{ClientID: c.id, Action: c.action, Source: c.writer.Info().Name, Members: membersOf(before, after), InForce: err == nil, By: by})
	}
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

func senderOf(r *http.Request) (by Sender) {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr // of a Unix socket
	}
	by.RemoteIP = address
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		leaf := r.TLS.PeerCertificates[0]
		by.Certificate, by.Thumbprint = dn.Format(leaf.RawSubject), validators.ThumbprintOf(leaf.Raw).String()
	}
	return by
}

func (by Sender) fields() []zap.Field {
	fields := []zap.Field{zap.String("remote_ip", by.RemoteIP)}
	if by.Thumbprint != "" {
		fields = append(fields, zap.String("admin", by.Certificate), zap.String("admin_thumbprint", by.Thumbprint))
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

// membersOf returns the names of the members of several objects.
func membersOf(objects ...[]byte) []string {
	names := make(map[string]json.RawMessage)
	for _, object := range objects {
		_ = json.Unmarshal(object, &names) // there may be none
	}
	return slices.Sorted(maps.Keys(names))
}
