package statuspage

import (
	"fmt"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const (
	// soon is when a certificate that expires needs attention, and later when it is
	// worth a second look.
	soon  = 14 * 24 * time.Hour
	later = 30 * 24 * time.Hour
	// maxNotes bounds how many notes of a kind are shown one by one.
	maxNotes = 3
)

// note is something that an operator should look at.
type note struct {
	// Level is `bad` or `warn`, and Word what a reader sees of it.
	Level, Word string
	Text        string
	// Section is the id of the section that says more.
	Section string
}

// Attention returns what an operator should look at, the most urgent first.
func (r *realmView) Attention() (notes []note) {
	var bad, warn []note
	for i := range r.Sources {
		switch s := &r.Sources[i]; {
		case s.Error != "":
			bad = append(bad, note{"bad", "failing", shown(s.Name) + " cannot be read", "sources"})
		case s.Late:
			bad = append(bad, note{"bad", "late", shown(s.Name) + " was " + r.lastRead(s), "sources"})
		}
	}
	bad = atMost(bad, "sources need attention", "sources")
	bad = append(bad, r.expiringNotes()...)
	if r.Issuer != nil && !r.signs() {
		bad = append(bad, note{"bad", "no key", "no key signs tokens", "issuer"})
	}
	if r.Shadow != nil && len(r.Shadow.Failing) > 0 {
		warn = append(warn, note{"warn", "shadow", count(len(r.Shadow.Failing)+r.Shadow.More, "client fails", "clients fail") + " under the shadow trust pool", "shadow"})
	}
	for i := range r.Sources {
		if s := &r.Sources[i]; s.Copy != "" {
			warn = append(warn, note{"warn", "copy", shown(s.Name) + " is in use as its last good copy", "sources"})
		}
		if s := &r.Sources[i]; s.Refused > 0 {
			warn = append(warn, note{"warn", "refused", count(s.Refused, "record", "records") + " of " + shown(s.Name) + " not in force", "sources"})
		}
	}
	return append(bad, atMost(warn, "more to look at", "sources")...)
}

func (r *realmView) expiringNotes() (notes []note) {
	for i := range r.Expiring {
		if e := &r.Expiring[i]; e.NotAfter.Sub(r.At) <= soon {
			word, verb := "expiring", " expires "
			if !e.NotAfter.After(r.At) {
				word, verb = "expired", " expired "
			}
			notes = append(notes, note{"bad", word, "the certificate of " + ownerOf(*e) + verb + relative(e.NotAfter, r.At), "expiring"})
		}
	}
	return atMost(notes, "certificates expire within 14 days", "expiring")
}

// atMost replaces the notes after the first few with one that counts them all.
func atMost(notes []note, what, section string) []note {
	if len(notes) <= maxNotes {
		return notes
	}
	all := len(notes)
	return append(notes[:maxNotes:maxNotes], note{notes[0].Level, "more", fmt.Sprintf("%d %s", all, what), section})
}

func (r *realmView) lastRead(s *status.Source) string {
	if s.LastSuccess.IsZero() {
		return "never read"
	}
	return "last read " + relative(s.LastSuccess, r.At)
}

// signs reports whether a key of the issuer is active.
func (r *realmView) signs() bool {
	for i := range r.Issuer.Keys {
		if r.Issuer.Keys[i].State == "active" {
			return true
		}
	}
	return false
}
