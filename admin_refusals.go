package mtlsauth

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

// adminRefusals are the refusals that a request asks for, the newest first.
type adminRefusals struct {
	Refusals []refusals.Record `json:"refusals"`
}

// adminRefusal is a refusal and what to do about it.
type adminRefusal struct {
	refusals.Record
	Sentence string `json:"sentence,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// adminStrangers are certificates that belong to nobody, the last refused first.
type adminStrangers struct {
	Strangers []refusals.Stranger `json:"strangers"`
	// More is how many there are besides.
	More int `json:"more_strangers"`
}

func listRefusals(w http.ResponseWriter, r *http.Request) error {
	app := runningApp()
	if app.Now == nil {
		return writeAdmin(w, adminRefusals{[]refusals.Record{}}) // no app is running
	}
	realm, q, err := refusals.ParseQuery(r.URL.RawQuery, app.Now())
	if err != nil {
		return adminError(http.StatusBadRequest, "%w", err)
	}
	if realm != "" {
		if _, err := app.realm(realm); err != nil {
			return adminError(http.StatusNotFound, "%w", err)
		}
	}
	return writeAdmin(w, adminRefusals{app.Observed().ListRefusals(realm, q)})
}

func showRefusal(w http.ResponseWriter, r *http.Request) error {
	app := runningApp()
	record, found := app.Observed().Refusal(r.PathValue("error_id"))
	if !found {
		return adminError(http.StatusNotFound, "no refusal with the error id %.100q is remembered; %s; search the logs of all nodes for it", r.PathValue("error_id"), app.remembers())
	}
	shown := adminRefusal{Record: record}
	if text, known := reasons.Of(record.Reason); known {
		text = text.Plain()
		shown.Sentence, shown.Remedy = text.Sentence, text.Remedy
	}
	return writeAdmin(w, shown)
}

// remembers says how many refusals are remembered and for how long.
func (a *App) remembers() string {
	var text strings.Builder
	text.WriteString("each node remembers its own refusals since it was started")
	for _, name := range slices.Sorted(maps.Keys(a.Realms)) {
		limits := a.Realms[name].Refusals.limits(a.Now)
		fmt.Fprintf(&text, ", realm '%s' the last %d for %s", name, limits.Keep, shortDuration(limits.KeepFor))
		if text.Len() > 500 {
			text.WriteString(", …")
			break
		}
	}
	return text.String()
}

// shortDuration returns a duration without zero minutes and seconds.
func shortDuration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

func listStrangers(w http.ResponseWriter, r *http.Request, realm *Realm) error {
	limit, err := refusals.ParseLimit(r.URL.RawQuery)
	if err != nil {
		return adminError(http.StatusBadRequest, "%w", err)
	}
	list, more := realm.observed().Strangers(limit)
	return writeAdmin(w, adminStrangers{list, more})
}
