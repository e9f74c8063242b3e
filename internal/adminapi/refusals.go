package adminapi

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

// refusalList are the refusals that a request asks for, the newest first.
type refusalList struct {
	Refusals []refusals.Record `json:"refusals"`
}

// refusalInfo is a refusal and what to do about it.
type refusalInfo struct {
	refusals.Record
	Sentence string `json:"sentence,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// strangerList are certificates that belong to nobody, the last refused first.
type strangerList struct {
	Strangers []refusals.Stranger `json:"strangers"`
	// More is how many there are besides.
	More int `json:"more_strangers"`
}

func (a api) listRefusals(w http.ResponseWriter, r *http.Request) error {
	running := a.running()
	app := running.Observed()
	if app.Now == nil {
		return writeJSON(w, refusalList{[]refusals.Record{}}) // no app is running
	}
	realm, q, err := refusals.ParseQuery(r.URL.RawQuery, app.Now())
	if err != nil {
		return apiError(http.StatusBadRequest, "%w", err)
	}
	if realm != "" {
		if _, err := running.Realm(realm); err != nil {
			return apiError(http.StatusNotFound, "%w", err)
		}
	}
	return writeJSON(w, refusalList{app.ListRefusals(realm, q)})
}

func (a api) showRefusal(w http.ResponseWriter, r *http.Request) error {
	app := a.running().Observed()
	record, found := app.Refusal(r.PathValue("error_id"))
	if !found {
		return apiError(http.StatusNotFound, "no refusal with the error id %.100q is remembered; %s; search the logs of all nodes for it", r.PathValue("error_id"), remembers(app))
	}
	shown := refusalInfo{Record: record}
	if text, known := reasons.Of(record.Reason); known {
		text = text.Plain()
		shown.Sentence, shown.Remedy = text.Sentence, text.Remedy
	}
	return writeJSON(w, shown)
}

// remembers says how many refusals are remembered and for how long.
func remembers(app *observed.App) string {
	var text strings.Builder
	text.WriteString("each node remembers its own refusals since it was started")
	for _, name := range app.Names() {
		limits := app.Realms[name]().Refusals.Limits()
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

func listStrangers(w http.ResponseWriter, r *http.Request, realm Realm) error {
	limit, err := refusals.ParseLimit(r.URL.RawQuery)
	if err != nil {
		return apiError(http.StatusBadRequest, "%w", err)
	}
	list, more := realm.Strangers(limit)
	return writeJSON(w, strangerList{list, more})
}
