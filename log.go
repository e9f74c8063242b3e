package mtlsauth

import (
	"crypto/x509"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The bounds of what a caller chooses, in octets of JSON. With those of the certificate in
// internal/authn, a log line has at most 4 KiB.
const (
	maxLoggedDetail   = 768
	maxLoggedPath     = 256
	maxLoggedHost     = 128
	maxLoggedClientID = 256
	maxLoggedTokenID  = 256
)

// What refuses, as operators call it.
const (
	directiveAuth     = "mtls_auth"
	directiveIssuer   = "mtls_issuer"
	directiveBearer   = "mtls_bearer"
	directiveVerifier = "verifier"
)

// refusedRequest is what the request path hands over about a refusal.
type refusedRequest struct {
	directive string
	message   string
	refusal   *validators.Refusal
	// reportOnly is set if the request is passed on nevertheless.
	reportOnly bool
	// failed makes it an ERROR instead of a WARN: the caller is not to blame.
	failed bool
	// presented are the certificates of the request, leaf first. notes keeps what
	// operators are told about them; nil if they have not been looked at.
	presented []*x509.Certificate
	notes     *authn.Notes
	// clientID and errorID are "" for none. With claimed, the client is not known: the
	// request names it.
	clientID, errorID string
	claimed           bool
	// tokenIssuer and tokenID are those of a verified token.
	tokenIssuer, tokenID string

	realm               *Realm
	at                  time.Time
	remoteIP, host, uri string
	forwarded           bool
	octets              int64 // of presented
	// ignored is the header in which the peer sent a certificate that does not count,
	// or "".
	ignored string
}

// logRefusal counts a refusal and hands it to the reporter. r is nil for a refusal in the
// handshake.
func logRefusal(realm *Realm, r *http.Request, refused refusedRequest) {
	metrics.CountRefusal(realm.name, refused.directive, refused.refusal.Reason, refused.reportOnly)
	refused.realm, refused.at = realm, realm.app.Now()
	if r != nil {
		// copies, because the request's own text may be part of a large header
		refused.remoteIP, refused.host, refused.uri = remoteIP(r), logCopy(r.Host, maxLoggedHost), logCopy(r.URL.Path, maxLoggedPath)
		refused.forwarded = realm.proxyCertificates.trusts(r)
		if realm.proxyCertificates != nil || refused.refusal.Reason == validators.CertificateMissing {
			refused.ignored = realm.proxyCertificates.ignoredHeader(r)
		}
	}
	refused.clientID = logCopy(refused.clientID, maxLoggedClientID)
	refused.tokenID = logCopy(refused.tokenID, maxLoggedTokenID)
	refused.keepPresented()
	realm.app.refusals.add(&refused)
}

// logCopy returns a copy of the text, cut as [authn.LogText] does.
func logCopy(text string, most int) string {
	return strings.Clone(authn.LogText(text, most))
}

// keepPresented keeps the certificates only if they are still needed to describe them.
func (refused *refusedRequest) keepPresented() {
	switch {
	case refused.notes == nil && len(refused.presented) > 0 && validators.CheckPresented(refused.presented) == nil:
		refused.notes = authn.NewNotes(refused.refusal)
	case refused.notes == nil, refused.notes.Made(refused.realm.authenticator(), refused.refusal):
		refused.presented = nil
	}
	refused.octets = int64(validators.PresentedSize(refused.presented))
}

// class returns what is known about the caller without looking at the certificate. As a
// [refusals.Record], the refusal may be one of a client.
func (refused *refusedRequest) class() refusals.Class {
	switch {
	case refused.clientID != "" && !refused.claimed:
		return refusals.KnownClient
	case refused.notes != nil:
		return refusals.WithCertificate
	}
	return refusals.WithoutCertificate
}

// record describes the refusal for operators. It is made off the request path: how long a
// hint takes depends on which clients are registered, and a stranger must not be able to
// measure that.
func (refused *refusedRequest) record(withHint bool) refusals.Record {
	record := refusals.Record{
		ErrorID: refused.errorID, At: refused.at, Realm: refused.realm.name,
		Directive: refused.directive, Message: refused.message,
		Reason: string(refused.refusal.Reason), Detail: refused.detail(),
		ReportOnly: refused.reportOnly, Failed: refused.failed, Forwarded: refused.forwarded,
		RemoteIP: printable(refused.remoteIP, maxLoggedHost), Host: printable(refused.host, maxLoggedHost), URI: printable(refused.uri, maxLoggedPath),
		ClientID: printable(refused.clientID, maxLoggedClientID), Claimed: refused.claimed,
		TokenIssuer: refused.tokenIssuer, TokenID: printable(refused.tokenID, maxLoggedTokenID),
	}
	if record.ErrorID == "" {
		record.ErrorID = caddyhttp.Error(0, nil).ID // nobody else has it
	}
	if refused.notes != nil {
		var hinting *authn.Authenticator
		if withHint {
			hinting = refused.realm.authenticator()
		}
		certificate, hints := refused.notes.Describe(hinting, refused.presented, refused.refusal)
		record.Certificate, record.Hint, record.Register = certificate, hints.Hint, hints.Register
		if record.ClientID == "" {
			record.ClientID = refused.notes.Owner(hinting, refused.presented, refused.refusal)
		}
	}
	return record
}

// printable escapes text that a stranger may have chosen, and cuts it as [authn.LogText]
// does.
func printable(text string, most int) string {
	return authn.LogText(source.Text(text, most), most)
}

func (refused *refusedRequest) detail() string {
	why := ""
	if refused.ignored != "" {
		why = "; " + refused.realm.proxyCertificates.whyIgnored(refused.ignored, refused.remoteIP)
	}
	why += refused.realm.troubles.whyUnknown(refused.refusal.Reason)
	return printable(refused.refusal.Detail, maxLoggedDetail-len(why)) + why
}

// levelOf returns the level of the lines about a refusal.
func levelOf(failed bool) zapcore.Level {
	if failed {
		return zap.ErrorLevel
	}
	return zap.WarnLevel
}

// writeLine writes the log line of a refusal.
func writeLine(logger *zap.Logger, record *refusals.Record) {
	entry := logger.Check(levelOf(record.Failed), record.Message)
	if entry == nil {
		return
	}
	entry.Time = record.At
	fields := []zap.Field{zap.String("reason", record.Reason), zap.String("detail", record.Detail), zap.String("directive", record.Directive)}
	if record.ReportOnly {
		fields = append(fields, zap.Bool("report_only", true))
	}
	if record.RemoteIP != "" {
		fields = append(fields, zap.String("remote_ip", record.RemoteIP), zap.String("host", record.Host), zap.String("uri", record.URI))
	}
	if record.Forwarded {
		fields = append(fields, zap.Bool("forwarded", true)) // and remote_ip is the proxy's
	}
	fields = append(fields, zap.String("error_id", record.ErrorID))
	fields = appendText(fields, "client_id", record.ClientID)
	if record.Certificate != nil {
		fields = append(fields, authn.CertificateFields(record.Certificate)...)
		if names := record.Certificate.Names; len(names) > 0 {
			fields = append(fields, zap.Strings("names", names))
		}
	}
	hint := record.Hint
	if text, known := reasons.Of(record.Reason); known && hint == "" {
		hint = text.Short()
	}
	fields = appendText(fields, "hint", hint)
	fields = appendText(fields, "register", record.Register)
	fields = appendText(fields, "token_issuer", record.TokenIssuer)
	fields = appendText(fields, "token_id", record.TokenID)
	entry.Write(fields...)
}

// writeCount writes the log line of refusals that have had none.
func writeCount(logger *zap.Logger, counted *refusals.Counted) {
	last := &counted.Last
	var entry *zapcore.CheckedEntry
	if counted.Several {
		entry = logger.Check(levelOf(last.Failed), "more refusals")
	} else {
		entry = logger.Check(levelOf(last.Failed), "refusal repeated")
	}
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.Int("times", counted.Times), zap.String("refused", counted.Message),
		zap.String("reason", counted.Reason), zap.String("directive", counted.Directive),
	}
	if last.ReportOnly {
		fields = append(fields, zap.Bool("report_only", true))
	}
	if !counted.Several {
		fields = appendText(fields, "client_id", last.ClientID)
		fields = appendText(fields, "thumbprint", last.Thumbprint)
		fields = appendText(fields, "remote_ip", last.RemoteIP)
	}
	entry.Write(append(fields, zap.String("error_id", last.ErrorID))...)
}

func appendText(fields []zap.Field, key, text string) []zap.Field {
	if text == "" {
		return fields
	}
	return append(fields, zap.String(key, text))
}
