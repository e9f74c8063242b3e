package page_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const wide, phone = 1280, 360

// eachScreen returns the view on a wide screen and on a phone, light and dark.
func eachScreen(v view) (views []view) {
	name := v.name
	for _, v.Width = range []int{wide, phone} {
		for _, v.Scheme = range []string{"light", "dark"} {
			v.name = fmt.Sprintf("%s-%d-%s", name, v.Width, v.Scheme)
			views = append(views, v)
		}
	}
	return views
}

// checkPage checks what holds for every page: it fits on the screen, axe-core finds
// nothing, and the browser has nothing to say about it and fetches nothing else.
func checkPage(t *testing.T, v view, f found) {
	t.Helper()
	switch {
	case f.Failed != "":
		t.Fatalf("%s: %s", v.name, f.Failed)
	case f.Overflow > 0:
		t.Errorf("%s: the page is %d pixels wider than the screen", v.name, f.Overflow)
	case f.Pwned || f.Dialogs > 0 || f.Hidden:
		t.Errorf("%s: pwned %v, %d dialogs, hidden %v", v.name, f.Pwned, f.Dialogs, f.Hidden)
	}
	for _, violation := range f.Violations {
		t.Errorf("%s: axe-core: %s", v.name, violation)
	}
	for _, message := range f.Console {
		t.Errorf("%s: the console has %q", v.name, message)
	}
	for _, request := range f.Requests {
		if origin, _, _ := strings.Cut(v.URL, "?"); !strings.HasPrefix(request, origin) {
			t.Errorf("%s: it fetches %s", v.name, request)
		}
	}
	last := 0
	for _, level := range f.Headings {
		if level > last+1 || level == 1 && last > 0 {
			t.Errorf("%s: the headings are %v", v.name, f.Headings)
			break
		}
		last = level
	}
}

// wantText checks that a person sees these texts, in this order.
func wantText(t *testing.T, v view, f found, texts ...string) {
	t.Helper()
	rest := strings.Join(strings.Fields(f.Text), " ")
	for _, text := range texts {
		_, after, seen := strings.Cut(rest, text)
		if !seen {
			t.Errorf("%s: %q is not seen after the texts before it; the page has\n%s", v.name, text, f.Text)
			return
		}
		rest = after
	}
}

// TestPageInBrowser checks what people see on wide screens and phones, in light and
// dark colours.
func TestPageInBrowser(t *testing.T) {
	server := serve(t, map[string]*reports{"/busy": busy(), "/empty": empty()})
	see := map[string][]string{
		"realm": {
			"Realm default", "As of 2030-03-04 15:06:07 UTC", "Needs attention", "failing crl:https://ca.example.com/clients.crl cannot be read",
			"late clients:http:https://directory.example.com/clients.json was last read 26 hours ago", "expired the certificate of warehouse-01 expired 19 hours ago",
			"14,232 admitted in the last hour", "118 refused in the last hour", "13 certificates expire within 90 days", "1,130 of 1,204 clients seen", "7 strangers refused lately",
			"Traffic of the last hour", "certificate_unknown", "No client has a name or hash of this certificate.", "62", "scope_missing", "report only: 1",
			"Certificates that expire within 90 days", "warehouse-02", "in 3 days 2030-03-07", "CN=Clients CA 2024,O=Example Company",
			"Clients", "1,204 clients are registered; 1,130 have been admitted", "74 never", "warehouse-01", "1 minute ago", "warehouse-04", "never", "disabled", "Next page",
			"Strangers", "CN=billing-2,OU=production,O=Example Company", "refused 412 times from 198.51.100.23", "Hint:", "The block that registers it",
			"Recent refusals", "k3f9x2m7q", "2 minutes ago", "token_expired", "report only",
			"Shadow trust pool", "legacy-import", "last seen with another certificate", "Issuer", "https://auth.example.com", "in 41 days", "3 that have not expired", "Kq3vZ0hJw8T1", "active",
			"Sources", "clients:file:/etc/caddy/partners.json", "in order", "crl:https://ca.example.com/clients.crl", "failing", "503 Service Unavailable", "late", "copy in use", "2 records not in force",
		},
		"why": {
			"Error id k3f9x2m7q", "refused certificate_unknown No client has a name or hash of this certificate.", "client 'billing' has the subject", "To register it, paste the block",
			"2030-03-04 15:04:07", "412 times", "mtls_auth", "api.example.com/v1/orders", "198.51.100.23", thumbprint, `client "CHANGE-ME" {`, "thumbprint",
		},
		"overview": {"All realms", "default", "14,232", "1,130 of 1,204", "2 need attention", "partners", "120", "8 of 8", "in order", "Sources of no realm", "jwks:https://login.example.net", "late"},
		"empty":    {"Realm default", "No caller has been refused in the last hour.", "No certificate that this Caddy has seen", "No client is registered", "No certificate of a stranger", "No refusal is remembered", "The issuer has no key yet", "The realm reads nothing"},
		"nobody":   {"Error id zzzzzzzzz", "No refusal with this error id is remembered here."},
	}
	var views []view
	for name, path := range map[string]string{"realm": "/busy?realm=default", "why": "/busy?realm=default&error_id=k3f9x2m7q", "overview": "/busy", "empty": "/empty", "nobody": "/empty?error_id=zzzzzzzzz"} {
		views = append(views, eachScreen(view{name: name, URL: server.URL + path, Axe: true})...)
	}
	for i, f := range look(t, views) {
		checkPage(t, views[i], f)
		name, _, _ := strings.Cut(views[i].name, "-")
		wantText(t, views[i], f, see[name]...)
	}
}

// TestPageIsUsed checks what happens when people use the page, with the keyboard and
// the mouse: every view that they reach has an address of its own.
func TestPageIsUsed(t *testing.T) {
	source := busy()
	server := serve(t, map[string]*reports{"/status": source})
	tests := []struct {
		name, url string
		steps     [][]string
		address   string
		see       []string
	}{
		{"an error id", "/status", [][]string{{"fill", "Error id", " k3f9x2m7q "}, {"press", "Enter"}}, "?error_id=+k3f9x2m7q+", []string{"All realms", "Error id k3f9x2m7q", `client "CHANGE-ME" {`}},
		{"an error id in a realm", "/status?realm=default", [][]string{{"fill", "Error id", "nonesuch"}, {"click", "button", "Explain"}}, "?realm=default&error_id=nonesuch", []string{"Realm default", "No refusal with this error id"}},
		{"a refusal", "/status?realm=default", [][]string{{"click", "link", "h5d2j7s0n"}}, "?error_id=h5d2j7s0n&realm=default", []string{"token_expired", "the token expired 12 s ago", "warehouse-02"}},
		{"a realm", "/status", [][]string{{"click", "link", "partners"}}, "?realm=partners", []string{"Realm partners"}},
		{"a search", "/status?realm=default", [][]string{{"fill", "Id or name contains", "ware"}, {"check", "never seen"}, {"click", "button", "Search"}}, "?realm=default&q=ware&never=1#clients", []string{"of those that fit"}},
		{"never seen", "/status?realm=default", [][]string{{"click", "link", "74 never"}}, "?never=1&realm=default#clients", []string{"of those that fit"}},
		{"the next page", "/status?realm=default&q=ware", [][]string{{"click", "link", "Next page"}}, "?after=warehouse-07&q=ware&realm=default#clients", []string{"after warehouse-07", "First page"}},
		{"a section", "/status?realm=default", [][]string{{"click", "link", "7 strangers refused lately"}}, "?realm=default#strangers", nil},
		{"the keyboard", "/status?realm=default", [][]string{{"press", "Tab"}, {"focused", "Skip to the content"}, {"press", "Enter"}}, "?realm=default#main", nil},
	}
	var views []view
	for _, test := range tests {
		views = append(views, view{name: strings.ReplaceAll(test.name, " ", "-"), URL: server.URL + test.url, Width: phone, Scheme: "dark", Steps: test.steps, Address: server.URL + "/status" + test.address})
	}
	for i, f := range look(t, views) {
		checkPage(t, views[i], f)
		wantText(t, views[i], f, tests[i].see...)
	}
	if !slices.ContainsFunc(source.asked, func(q status.Query) bool { return q.Never && q.Text == "ware" && q.Realm == "default" }) {
		t.Errorf("the search asks for %+v", source.asked)
	}
}

// TestHostilePagesInBrowser checks that no text of a stranger runs as a script, becomes
// an element or an attribute, leads anywhere, or breaks the layout, even without the
// policy of the page.
func TestHostilePagesInBrowser(t *testing.T) {
	paths := map[string]*reports{"/harmless": hostile("x")}
	for i, text := range hostileTexts {
		paths[fmt.Sprintf("/%d", i)] = hostile(text)
	}
	server := serve(t, paths)
	const realm = "?realm=default&error_id=hostile"
	views := []view{{name: "harmless", URL: server.URL + "/harmless" + realm, Width: wide, Scheme: "light", WithoutPolicy: true}}
	for i := range hostileTexts {
		v := view{name: fmt.Sprintf("hostile-%d", i), URL: fmt.Sprintf("%s/%d%s", server.URL, i, realm), Width: []int{wide, phone}[i%2], Scheme: []string{"light", "dark"}[i/2%2], WithoutPolicy: true}
		views = append(views, v)
		if strings.Contains(hostileTexts[i], strings.Repeat("W", 99)) || strings.Contains(hostileTexts[i], strings.Repeat("<b>", 99)) {
			v.name, v.URL, v.Width, v.Axe = v.name+"-overview", fmt.Sprintf("%s/%d", server.URL, i), phone, true
			views = append(views, v)
			v.name, v.URL = v.name+"-realm", v.URL+realm
			views = append(views, v)
			v.name, v.Width, v.Scheme = v.name+"-wide", wide, "light"
			views = append(views, v)
		}
	}
	results := look(t, views)
	tags, attributes := results[0].Tags, results[0].Attributes
	for i, f := range results {
		checkPage(t, views[i], f)
		for _, tag := range f.Tags {
			if !slices.Contains(tags, tag) {
				t.Errorf("%s has an element %s", views[i].name, tag)
			}
		}
		for _, attribute := range f.Attributes {
			if !slices.Contains(attributes, attribute) {
				t.Errorf("%s has an attribute %s", views[i].name, attribute)
			}
		}
		for _, link := range f.Links {
			if !strings.HasPrefix(link, "?") && !strings.HasPrefix(link, "#") {
				t.Errorf("%s leads to %q", views[i].name, link)
			}
		}
	}
	for _, tag := range []string{"script", "img", "iframe", "link", "object", "embed", "base"} {
		if slices.Contains(tags, tag) {
			t.Errorf("the page has an element %s", tag)
		}
	}
}
