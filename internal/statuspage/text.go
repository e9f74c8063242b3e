package statuspage

import (
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const (
	// maxText bounds names and sentences on the page, and maxBlock a `client` block,
	// in bytes. A stranger may have chosen them.
	maxText  = 300
	maxBlock = 8 << 10
	// maxBrief bounds words that are not broken into lines, and maxNames how many names
	// of a certificate are shown.
	maxBrief = 24
	maxNames = 20
	// shortThumbprint is how much of a thumbprint a table shows.
	shortThumbprint = 16
)

// functions are those of the templates.
var functions = template.FuncMap{
	"shown": shown, "brief": brief, "names": names, "lines": lines, "short": short, "number": number, "count": count, "when": when,
	"bars": bars, "owner": ownerOf, "level": levelOf, "kind": kindOf, "who": whoOf, "normal": normal, "sentence": sentence, "remedy": remedy, "register": register,
}

// shown returns text for the page: bounded, and without characters that could change
// how the text around it reads.
func shown(text string) string { return source.Text(text, maxText) }

// brief is like shown, for words such as a reason.
func brief(text string) string { return source.Text(text, maxBrief) }

// names returns the names of a certificate.
func names(list []string) string {
	text := make([]string, 0, maxNames)
	for _, name := range list[:min(len(list), maxNames)] {
		text = append(text, shown(name))
	}
	if more := len(list) - len(text); more > 0 {
		text = append(text, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(text, ", ")
}

// lines returns a `client` block, with its lines.
func lines(text string) string {
	if len(text) > maxBlock {
		return "The block is too long to be shown; see the log line."
	}
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func short(thumbprint string) string {
	if len(thumbprint) <= shortThumbprint {
		return shown(thumbprint)
	}
	return shown(thumbprint[:shortThumbprint]) + "…"
}

// number returns a count as people read it.
func number(value any) string {
	switch value := value.(type) {
	case int:
		return humanize.Comma(int64(value))
	case uint64:
		return humanize.Comma(int64(min(value, 1<<62)))
	}
	return fmt.Sprint(value)
}

// count returns a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// moment is a time on the page.
type moment struct {
	Zero          bool
	ISO, Relative string
	// Short has the time or the date, whichever matters, and UTC both.
	Short, UTC string
}

func when(t, now time.Time) moment {
	t = t.UTC()
	short := time.DateOnly
	if distance := now.Sub(t); -12*time.Hour < distance && distance < 12*time.Hour {
		short = "15:04"
	}
	return moment{t.IsZero(), t.Format(time.RFC3339), relative(t, now), t.Format(short), t.Format(time.DateTime)}
}

// relative says how long ago a time was, or in how long it will be.
func relative(t, now time.Time) string {
	distance, past := t.Sub(now), false
	if distance <= 0 {
		distance, past = -max(distance, -1<<62), true
	}
	const day = 24 * time.Hour
	var text string
	switch {
	case distance < 45*time.Second && past:
		return "just now"
	case distance < time.Minute:
		text = "a minute"
	case distance < 90*time.Minute:
		text = count(int(distance.Round(time.Minute)/time.Minute), "minute", "minutes")
	case distance < 2*day:
		text = count(int(distance.Round(time.Hour)/time.Hour), "hour", "hours")
	case distance < 2*365*day:
		text = count(int(distance/day), "day", "days")
	default:
		text = count(int(distance/(365*day)), "year", "years")
	}
	if past {
		return text + " ago"
	}
	return "in " + text
}

// normal returns how old the last success of a source may be, or "" if unknown.
func normal(seconds float64) string {
	d := time.Duration(min(seconds, 1e9) * float64(time.Second))
	switch {
	case d <= 0:
		return ""
	case d < 2*time.Minute:
		return count(int(d.Seconds()), "second", "seconds")
	}
	return strings.TrimPrefix(relative(time.Time{}.Add(d), time.Time{}), "in ")
}

// ownerOf says whose certificate expires.
func ownerOf(e status.Expiring) string {
	switch {
	case e.ClientID != "":
		return shown(e.ClientID)
	case e.Subject != "":
		return shown(e.Subject)
	}
	return short(e.Thumbprint)
}

func kindOf(e status.Expiring) string {
	switch e.Kind {
	case status.ExpiringClient:
		return "client"
	case status.ExpiringCA:
		return "CA"
	case status.ExpiringShadow:
		return "shadow CA"
	case status.ExpiringFetch:
		return "CA of a server"
	}
	return brief(e.Kind)
}

// levelOf says how urgent it is that a certificate expires.
func levelOf(notAfter, now time.Time) string {
	switch left := notAfter.Sub(now); {
	case left <= soon:
		return "bad"
	case left <= later:
		return "warn"
	}
	return "calm"
}
