package page_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// now is the time of the reports.
var now = time.Date(2030, 3, 4, 15, 6, 7, 0, time.UTC)

const day = 24 * time.Hour

// reports is a source of the page that is made by hand.
type reports struct {
	report status.Report
	asked  []status.Query
}

func (r *reports) Names() (names []string) {
	for i := range r.report.Realms {
		names = append(names, r.report.Realms[i].Name)
	}
	return names
}

func (r *reports) Status(query status.Query) status.Report {
	r.asked = append(r.asked, query)
	report := r.report
	if query.Realm == "" {
		return report
	}
	report.Realms, report.Sources, report.Refusals = nil, nil, nil
	for _, realm := range r.report.Realms {
		if realm.Name == query.Realm {
			report.Realms = append(report.Realms, realm)
		}
	}
	return report
}

func (r *reports) Refusal(errorID string) (refusals.Record, bool) {
	for i := range r.report.Realms {
		for _, record := range r.report.Realms[i].Refusals {
			if record.ErrorID == errorID {
				return record, true
			}
		}
	}
	return refusals.Record{}, false
}

// minutes returns a series of the last hour.
func minutes(of func(i int) uint64) (s status.Series) {
	for i := range 60 {
		s.Minute = append(s.Minute, of(i))
		s.Total += s.Minute[i]
	}
	return s
}

const register = `client "CHANGE-ME" {
	# subject "CN=billing-2,OU=production,O=Example Company"
	thumbprint "` + thumbprint + `"
}
`

const thumbprint = "5f1e3a9c7b2d4e6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"

// busy returns a report of two realms with something of everything.
func busy() *reports {
	realm := status.Realm{
		Name: "default", Since: now.Add(-12 * day),
		Traffic: status.Traffic{
			Minutes:  60,
			Admitted: minutes(func(i int) uint64 { return uint64(180 + i*i%47 + (i*31)%23 + i) }),
			Refused:  minutes(func(i int) uint64 { return uint64((i * 7 % 5) * (i % 3) * (i / 20)) }),
			Tokens:   minutes(func(i int) uint64 { return uint64(i * 13 % 9) }),
			Reasons: []status.Reason{
				{Reason: "certificate_unknown", Series: minutes(func(i int) uint64 { return uint64((i % 3) * (i / 20)) })},
				{Reason: "certificate_expired", Series: minutes(func(i int) uint64 { return uint64(i % 2) })},
				{Reason: "scope_missing", Series: minutes(func(i int) uint64 { return uint64(i / 58) }), ReportOnly: 1},
			},
		},
		Clients: status.Clients{Total: 1204, Seen: 1130, Next: "warehouse-07"},
		Shadow: &status.Shadow{Failing: []status.ShadowFailure{{
			ClientID: "legacy-import", Subject: "CN=legacy-import,O=Example Company", Thumbprint: thumbprint, NotAfter: now.Add(200 * day),
			Why: "the certificate is signed by 'CN=Clients CA 2024', which is not in the pool", Another: now.Add(-3 * time.Hour),
		}}},
		Issuer: &status.Issuer{
			URL: "https://auth.example.com", NextRotation: now.Add(41 * day), RevokedTokens: 3,
			Keys: []status.Key{
				{ID: "Kq3vZ0hJw8T1", Algorithm: "ES256", State: "active", Created: now.Add(-49 * day), From: now.Add(-48 * day)},
				{ID: "b9XyD2mPr4L7", Algorithm: "ES256", State: "next", Created: now.Add(-time.Hour), From: now.Add(41 * day)},
				{ID: "w0NcE5fGt6Q2", Algorithm: "ES256", State: "past", Created: now.Add(-139 * day), From: now.Add(-138 * day), Until: now.Add(2 * day)},
			},
		},
		Sources: []status.Source{
			{Name: "clients:file:/etc/caddy/partners.json", LastSuccess: now.Add(-20 * time.Second), Normal: 60, Clients: 1180},
			{Name: "trust_pool", LastSuccess: now.Add(-40 * time.Minute), Normal: 3700},
			{Name: "crl:https://ca.example.com/clients.crl", LastSuccess: now.Add(-5 * time.Hour), Normal: 3900, Late: true, Error: "GET https://ca.example.com/clients.crl: 503 Service Unavailable", NextUpdate: now.Add(19 * time.Hour)},
			{Name: "clients:http:https://directory.example.com/clients.json", LastSuccess: now.Add(-26 * time.Hour), Normal: 120, Late: true, Clients: 24, Refused: 2, Copy: "/var/lib/caddy/directory.copy"},
		},
	}
	for i, left := range []int{-1, 3, 9, 17, 26, 33, 33, 47, 47, 47, 58, 71, 84} {
		realm.Expiring = append(realm.Expiring, status.Expiring{
			Kind: status.ExpiringClient, ClientID: fmt.Sprintf("warehouse-%02d", i+1), Subject: fmt.Sprintf("CN=warehouse-%02d,OU=production,O=Example Company", i+1),
			Thumbprint: thumbprint, NotAfter: now.Add(time.Duration(left)*day + 5*time.Hour),
		})
	}
	realm.Expiring[4].Kind, realm.Expiring[4].ClientID, realm.Expiring[4].Subject = status.ExpiringCA, "", "CN=Clients CA 2024,O=Example Company"
	for i := range 12 {
		client := status.Client{ClientID: fmt.Sprintf("warehouse-%02d", i+1), Source: "file:/etc/caddy/partners.json"}
		if i%4 != 3 {
			client.LastSeen, client.NotAfter = now.Add(-time.Duration(i*i*7+1)*time.Minute), now.Add(time.Duration(i*30+3)*day)
			client.Credential, client.Matched, client.Thumbprint = "subject", "CN="+client.ClientID+",OU=production,O=Example Company", thumbprint
		}
		if i%5 == 1 {
			client.Name, client.Source, client.Credential, client.Matched = "Nightly stock count", "Caddyfile", "san_dns", client.ClientID+".partners.example"
		}
		client.Disabled = i == 7
		realm.Clients.List = append(realm.Clients.List, client)
	}
	certificate := refusals.Certificate{Subject: "CN=billing-2,OU=production,O=Example Company", Issuer: "CN=Clients CA 2026,O=Example Company", Serial: "3f:9a", Thumbprint: thumbprint, NotAfter: now.Add(300 * day)}
	stranger := refusals.Stranger{
		Certificate: certificate, Reason: "certificate_unknown", Detail: "no client has a name or hash of this certificate", RemoteIP: "198.51.100.23", ErrorID: "k3f9x2m7q",
		Hint: "client 'billing' has the subject 'CN=billing,OU=production,O=Example Company': CN differs", Register: register, Times: 412, First: now.Add(-3 * time.Hour), Last: now.Add(-2 * time.Minute),
	}
	other := stranger
	other.Subject, other.Issuer, other.Hint, other.RemoteIP, other.Times, other.First = "CN=scanner", "CN=scanner", "", "203.0.113.80", 1, now.Add(-50*time.Minute)
	other.Reason, other.Detail, other.Last, other.ErrorID = "certificate_untrusted", "the certificate is self-signed and no client pins it", now.Add(-50*time.Minute), "p8w1c4t6z"
	realm.Strangers, realm.MoreStrangers = []refusals.Stranger{stranger, other}, 5
	realm.Refusals = []refusals.Record{
		{ErrorID: "k3f9x2m7q", At: stranger.Last, Realm: "default", Directive: "mtls_auth", Message: "client refused", Reason: stranger.Reason, Detail: stranger.Detail, RemoteIP: stranger.RemoteIP, Host: "api.example.com", URI: "/v1/orders", Certificate: &certificate, Hint: stranger.Hint, Register: register, Times: 412, First: stranger.First},
		{ErrorID: "h5d2j7s0n", At: now.Add(-7 * time.Minute), Realm: "default", Directive: "mtls_bearer", Message: "token refused", Reason: "token_expired", Detail: "the token expired 12 s ago", RemoteIP: "192.0.2.14", ClientID: "warehouse-02", Times: 3, First: now.Add(-9 * time.Minute)},
		{ErrorID: "v6b1r8y3e", At: now.Add(-31 * time.Minute), Realm: "default", Directive: "mtls_auth", Message: "client would be refused", Reason: "scope_missing", Detail: "the client lacks the scope 'orders.write'", ReportOnly: true, RemoteIP: "192.0.2.77", ClientID: "warehouse-05", Times: 1, First: now.Add(-31 * time.Minute)},
		{ErrorID: "a4g7u9i2o", At: now.Add(-55 * time.Minute), Realm: "default", Directive: "verifier", Message: "client refused", Reason: "certificate_expired", Detail: "the certificate expired on 2030-02-28", ClientID: "warehouse-01", Certificate: &certificate, Times: 60, First: now.Add(-3 * time.Hour)},
	}
	partners := status.Realm{Name: "partners", Traffic: status.Traffic{Minutes: 60, Admitted: minutes(func(int) uint64 { return 2 }), Refused: minutes(func(int) uint64 { return 0 })}, Clients: status.Clients{Total: 8, Seen: 8}}
	return &reports{report: status.Report{
		At: now, Since: now.Add(-12 * day), Version: "v0.9.0", Realms: []status.Realm{realm, partners},
		Sources: []status.Source{{Name: "jwks:https://login.example.net", LastSuccess: now.Add(-2 * day), Normal: 3700, Late: true}},
	}}
}

// empty returns a report of one realm that has just begun.
func empty() *reports {
	return &reports{report: status.Report{At: now, Since: now, Realms: []status.Realm{{Name: "default", Traffic: status.Traffic{Minutes: 1}, Shadow: new(status.Shadow), Issuer: &status.Issuer{URL: "https://auth.example.com"}}}}}
}

// hostileTexts are what a stranger, or who writes a client's name, may try.
var hostileTexts = []string{
	`<script>window.pwned=1</script>`,
	`"><img src=x onerror="window.pwned=1">`,
	`' autofocus onfocus='window.pwned=1' x='`,
	`</style><style>body{display:none}</style>`,
	`</pre></details></title><iframe srcdoc="<script>parent.pwned=1</script>"></iframe>`,
	"javascript:window.pwned=1//",
	`{{env "HOME"}}{{.Req.URL}}`,
	"a\x00b\x1b[31mred\x1b[0m\r\nSet-Cookie: x=1",
	"\u202eexe.tnega\u202c\u200f\u2066abc\u2069",
	"شركة المثال",
	strings.Repeat("W", 4096),
	strings.Repeat("<b>", 1400),
	"&lt;script&gt;&#60;b&#62;&amp;",
	"\xff\xfe invalid \xc3",
	"`${window.pwned=1}`*/--><!--",
}

// hostile returns a report whose every text is one of hostileTexts.
func hostile(text string) *reports {
	r := busy()
	certificate := refusals.Certificate{Subject: text, Issuer: text, Serial: text, Thumbprint: text, Names: []string{text}, NotAfter: now.Add(day)}
	realm := status.Realm{
		Name: "default", Traffic: r.report.Realms[0].Traffic,
		Expiring:  []status.Expiring{{Kind: status.ExpiringClient, ClientID: text, Subject: text, Thumbprint: text, NotAfter: now.Add(day)}, {Kind: text, Subject: text, Thumbprint: text, NotAfter: now.Add(80 * day)}},
		Clients:   status.Clients{Total: 2, Seen: 1, Next: text, List: []status.Client{{ClientID: text, Name: text, Source: text, Disabled: true, LastSeen: now, Credential: text, Matched: text, Thumbprint: text, NotAfter: now.Add(day)}}},
		Strangers: []refusals.Stranger{{Certificate: certificate, Reason: text, Detail: text, RemoteIP: text, ErrorID: text, Hint: text, Register: text, Times: 1, First: now, Last: now}},
		Refusals: []refusals.Record{{
			ErrorID: "hostile", At: now, Realm: text, Directive: text, Message: text, Reason: text, Detail: text, RemoteIP: text, Host: text, URI: text, Forwarded: true,
			ClientID: text, Certificate: &certificate, Hint: text, Register: text, TokenIssuer: text, TokenID: text, Times: 2, First: now,
		}, {ErrorID: text, At: now, Reason: text, Certificate: &certificate, Times: 1, First: now}},
		Shadow:  &status.Shadow{Failing: []status.ShadowFailure{{ClientID: text, Subject: text, Thumbprint: text, NotAfter: now, Why: text}}},
		Issuer:  &status.Issuer{URL: text, Keys: []status.Key{{ID: text, Algorithm: text, State: text, Created: now, From: now, Until: now}}},
		Sources: []status.Source{{Name: text, LastSuccess: now, Normal: 60, Error: text, Copy: text, CopyTime: now, Clients: 1, Refused: 1, NextUpdate: now}, {Name: text, Late: true}},
	}
	realm.Traffic.Reasons = []status.Reason{{Reason: text, Series: minutes(func(i int) uint64 { return uint64(i) })}}
	return &reports{report: status.Report{At: now, Since: now, Version: text, Realms: []status.Realm{realm, {Name: text}}, Sources: realm.Sources}}
}
