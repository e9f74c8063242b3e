package statuspage

import (
	"html/template"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// The most that a page shows of each kind, and with show=all. The admin API has the rest.
const (
	few  = 25
	many = 200
	// maxRealms bounds the realms that a page shows or links to.
	maxRealms = 100
)

// view is what the templates show.
type view struct {
	At      time.Time
	Since   time.Time
	Version string
	// Realms are all realms, and MoreRealms how many are not linked.
	Realms     []string
	MoreRealms int
	// Asked is the realm of the request, which need not exist.
	Asked string
	// Lookup is nil unless the request has an error id.
	Lookup *lookup
	// Overview has the realms if there are several and the request names none.
	Overview []realmView
	// Others has the sources and refusals of no realm.
	Others realmView
	// Realm is the only one that the page is about, or nil.
	Realm *realmView
	query query
}

// CSS returns the style of the page.
func (v *view) CSS() template.CSS { return template.CSS(style) } //nolint:gosec // it is ours

// lookup is the answer to an error id.
type lookup struct {
	At      time.Time
	ErrorID string
	Found   bool
	Refusal refusals.Record
}

// realmView is a realm with what the templates need besides.
type realmView struct {
	status.Realm
	At time.Time
	// Timeline has all certificates that expire, and Expires is how many there are.
	Timeline chart
	Expires  int
	// Cut reports whether a longer list may have more than is shown.
	Cut   bool
	query query
}

func newView(source Source, q query) *view {
	v := &view{Realms: source.Names(), Asked: q.realm, query: q}
	asked := q.status()
	if len(v.Realms) == 1 {
		asked.Realm = "" // which also asks for the sources of no realm
	}
	exists := slices.Contains(v.Realms, q.realm)
	if q.realm == "" && len(v.Realms) == 1 {
		q.realm, exists = v.Realms[0], true
	}
	var report status.Report
	switch {
	case exists:
		report = source.Status(asked)
		for i := range report.Realms {
			if report.Realms[i].Name == q.realm {
				v.Realm = newRealmView(report.Realms[i], report.At, q)
			}
		}
	default:
		report = source.Status(status.Query{Limit: 1})
		for _, realm := range report.Realms[:min(len(report.Realms), maxRealms)] {
			v.Overview = append(v.Overview, *newRealmView(realm, report.At, query{realm: realm.Name}))
		}
	}
	v.Others = realmView{At: report.At, Realm: status.Realm{
		Sources: report.Sources[:min(len(report.Sources), many)], Refusals: report.Refusals[:min(len(report.Refusals), many)],
	}}
	v.At, v.Since, v.Version = report.At, report.Since, report.Version
	v.MoreRealms = max(0, len(v.Realms)-maxRealms)
	if q.errorID != "" {
		record, found := source.Refusal(q.errorID)
		v.Lookup = &lookup{report.At, q.errorID, found, record}
	}
	return v
}

// newRealmView cuts the lists of a realm to what a page shows, and counts what is left
// out.
func newRealmView(realm status.Realm, at time.Time, q query) *realmView {
	r := &realmView{Realm: realm, At: at, query: q}
	r.Timeline, r.Expires = line(realm.Expiring, at), len(realm.Expiring)+realm.MoreExpiring
	r.MoreExpiring += cut(r, &r.Expiring)
	r.MoreStrangers += cut(r, &r.Strangers)
	cut(r, &r.Refusals)
	cut(r, &r.Sources)
	cut(r, &r.Traffic.Reasons)
	if realm.Shadow != nil {
		shadow := *realm.Shadow
		shadow.More += cut(r, &shadow.Failing)
		r.Shadow = &shadow
	}
	if realm.Issuer != nil {
		issuer := *realm.Issuer
		cut(r, &issuer.Keys)
		r.Issuer = &issuer
	}
	r.Clients.List = r.Clients.List[:min(len(r.Clients.List), many)]
	return r
}

// cut cuts a list to what a page shows, and returns how many are left out.
func cut[T any](r *realmView, list *[]T) (more int) {
	most := few
	if r.query.all {
		most = many
	}
	more = max(0, len(*list)-most)
	*list = (*list)[:len(*list)-more]
	r.Cut = r.Cut || more > 0 && !r.query.all
	return more
}

// Links returns the realms that the page links to.
func (v *view) Links() []string {
	return v.Realms[:min(len(v.Realms), maxRealms)]
}

// Current returns the name of the realm that the page is about, or "".
func (v *view) Current() string {
	if v.Realm == nil {
		return ""
	}
	return v.Realm.Name
}

// Unknown reports whether the request names a realm that does not exist.
func (v *view) Unknown() bool { return v.Asked != "" && v.Realm == nil }

// LinkTo returns the link to a realm.
func (v *view) LinkTo(realm string) string { return query{realm: realm}.link() }

// AllLink returns the link to all realms.
func (v *view) AllLink() string { return "?" }

// Link returns the link to the realm.
func (r *realmView) Link() string { return r.query.link() }

// Late returns how many sources are late or cannot be read.
func (r *realmView) Late() (late int) {
	for i := range r.Sources {
		if r.Sources[i].Late || r.Sources[i].Error != "" {
			late++
		}
	}
	return late
}

// StrangerCount returns how many certificates of strangers are remembered.
func (r *realmView) StrangerCount() int { return len(r.Strangers) + r.MoreStrangers }

// Unseen returns how many clients have not been seen.
func (r *realmView) Unseen() int { return max(0, r.Clients.Total-r.Clients.Seen) }

// Text, Never and After are those of the request.
func (r *realmView) Text() string  { return r.query.text }
func (r *realmView) Never() bool   { return r.query.never }
func (r *realmView) After() string { return r.query.after }

// Filtered reports whether the request selects some of the clients.
func (r *realmView) Filtered() bool { return r.query.text != "" || r.query.never }

func (r *realmView) filter() []string {
	never := ""
	if r.query.never {
		never = "1"
	}
	return []string{"q", r.query.text, "never", never}
}

// First returns the link to the first page of clients, and Next that to the next.
func (r *realmView) First() string { return r.query.link(r.filter()...) + "#clients" }

// Next returns the link to the next page of clients.
func (r *realmView) Next() string {
	return r.query.link(append(r.filter(), "after", r.Clients.Next)...) + "#clients"
}

// NeverLink returns the link to the clients that have not been seen.
func (r *realmView) NeverLink() string { return r.query.link("never", "1") + "#clients" }

// All returns the link to the page with longer lists.
func (r *realmView) All() string { return r.query.link("show", "all") }

// Why returns the link that explains a refusal.
func (r *realmView) Why(errorID string) string { return r.query.link("error_id", errorID) }
