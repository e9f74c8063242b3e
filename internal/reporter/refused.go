package reporter

import (
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
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

// Realm is a realm whose refusals are reported.
type Realm struct {
	Name     string
	Logger   *zap.Logger
	Reporter *Reporter
	// Memory remembers the refusals.
	Memory *refusals.Memory
	// Authenticator returns what the realm decides by now, nil if it has no clients.
	Authenticator func() *authn.Authenticator
	// WhyUnknown adds to the detail of a refusal for a reason, and WhyIgnored why a header of
	// this peer did not count.
	WhyUnknown func(validators.Reason) string
	WhyIgnored func(header, peer string) string
	// Count counts a refusal of a client.
	Count func(*refusals.Record)
}

// Refused is what the request path hands over about a refusal.
type Refused struct {
	Directive string
	Message   string
	Refusal   *validators.Refusal
	// ReportOnly is set if the request is passed on nevertheless.
	ReportOnly bool
	// Failed makes it an ERROR instead of a WARN: the caller is not to blame.
	Failed bool
	// Presented are the certificates of the request, leaf first. Notes keeps what
	// operators are told about them; nil if they have not been looked at.
	Presented []*x509.Certificate
	Notes     *authn.Notes
	// ClientID and ErrorID are "" for none. With Claimed, the client is not known: the
	// request names it.
	ClientID, ErrorID string
	Claimed           bool
	// TokenIssuer and TokenID are those of a verified token.
	TokenIssuer, TokenID string
	// Forwarded is set if the peer is a trusted proxy. Ignored is the header in which the
	// peer sent a certificate that does not count, or "".
	Forwarded bool
	Ignored   string

	realm               *Realm
	at                  time.Time
	remoteIP, host, uri string
	octets              int64 // of Presented
}

// Add counts a refusal and hands it to the reporter. r is nil for a refusal in the
// handshake.
func (realm *Realm) Add(r *http.Request, refused Refused) {
	metrics.CountRefusal(realm.Name, refused.Directive, refused.Refusal.Reason, refused.ReportOnly)
	refused.realm, refused.at = realm, realm.Reporter.config.Now()
	if r != nil {
		// copies, because the request's own text may be part of a large header
		refused.remoteIP, refused.host, refused.uri = RemoteIP(r), logCopy(r.Host, maxLoggedHost), logCopy(r.URL.Path, maxLoggedPath)
	}
	refused.ClientID = logCopy(refused.ClientID, maxLoggedClientID)
	refused.TokenID = logCopy(refused.TokenID, maxLoggedTokenID)
	refused.keepPresented()
	realm.Reporter.add(&refused)
}

// RemoteIP returns the address of the immediate peer, without the port.
func RemoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// logCopy returns a copy of the text, cut as [authn.LogText] does.
func logCopy(text string, most int) string {
	return strings.Clone(authn.LogText(text, most))
}

// keepPresented keeps the certificates only if they are still needed to describe them.
func (refused *Refused) keepPresented() {
	switch {
	case refused.Notes == nil && len(refused.Presented) > 0 && validators.CheckPresented(refused.Presented) == nil:
		refused.Notes = authn.NewNotes(refused.Refusal)
	case refused.Notes == nil, refused.Notes.Made(refused.realm.Authenticator(), refused.Refusal):
		refused.Presented = nil
	}
	refused.octets = int64(validators.PresentedSize(refused.Presented))
}

// class returns what is known about the caller without looking at the certificate. As a
// [refusals.Record], the refusal may be one of a client.
func (refused *Refused) class() refusals.Class {
	switch {
	case refused.ClientID != "" && !refused.Claimed:
		return refusals.KnownClient
	case refused.Notes != nil:
		return refusals.WithCertificate
	}
	return refusals.WithoutCertificate
}

// record describes the refusal for operators. It is made off the request path: how long a
// hint takes depends on which clients are registered, and a stranger must not be able to
// measure that.
func (refused *Refused) record(withHint bool) refusals.Record {
	record := refusals.Record{
		ErrorID: refused.ErrorID, At: refused.at, Realm: refused.realm.Name,
		Directive: refused.Directive, Message: refused.Message,
		Reason: string(refused.Refusal.Reason), Detail: refused.detail(),
		ReportOnly: refused.ReportOnly, Failed: refused.Failed, Forwarded: refused.Forwarded,
		RemoteIP: printable(refused.remoteIP, maxLoggedHost), Host: printable(refused.host, maxLoggedHost), URI: printable(refused.uri, maxLoggedPath),
		ClientID: printable(refused.ClientID, maxLoggedClientID), Claimed: refused.Claimed,
		TokenIssuer: refused.TokenIssuer, TokenID: printable(refused.TokenID, maxLoggedTokenID),
	}
	if record.ErrorID == "" {
		record.ErrorID = caddyhttp.Error(0, nil).ID // nobody else has it
	}
	if refused.Notes != nil {
		var hinting *authn.Authenticator
		if withHint {
			hinting = refused.realm.Authenticator()
		}
		certificate, hints := refused.Notes.Describe(hinting, refused.Presented, refused.Refusal)
		record.Certificate, record.Hint, record.Register = certificate, hints.Hint, hints.Register
		if record.ClientID == "" {
			record.ClientID = refused.Notes.Owner(hinting, refused.Presented, refused.Refusal)
		}
	}
	return record
}

// printable escapes text that a stranger may have chosen, and cuts it as [authn.LogText]
// does.
func printable(text string, most int) string {
	return authn.LogText(source.Text(text, most), most)
}

func (refused *Refused) detail() string {
	why := ""
	if refused.Ignored != "" {
		why = "; " + refused.realm.WhyIgnored(refused.Ignored, refused.remoteIP)
	}
	why += refused.realm.WhyUnknown(refused.Refusal.Reason)
	return printable(refused.Refusal.Detail, maxLoggedDetail-len(why)) + why
}
