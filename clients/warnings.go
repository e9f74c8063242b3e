package clients

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxWarnedClients is how many clients a warning about several names.
const maxWarnedClients = 10

// warning is about a client that an operator should look at.
type warning struct {
	client, text string
	// several is what is said of that many warnings of the same kind, in place of
	// their texts; "" if each is reported
	several string
}

// warn adds a warning about the client that is being made.
func (m *clientMaker) warn(several, format string, args ...any) {
	id := m.client.ID
	m.warnings = append(m.warnings, warning{client: id, several: several, text: "client '" + id + "': " + fmt.Sprintf(format, args...)})
}

// warnEnded warns about the last credential if it has ended.
func (m *clientMaker) warnEnded() {
	if cred := &m.credentials[len(m.credentials)-1]; cred.Ended(m.plan.now) {
		m.warn("%d credentials have ended; remove them", "%s '%s' ended at %s; remove it", cred.Kind, cred.Value, cred.Until().UTC().Format(time.RFC3339))
	}
}

// warningTexts returns the texts to report: one for all warnings of a kind.
func warningTexts(list []warning) (texts []string) {
	byKind := make(map[string][]warning)
	for _, w := range list {
		byKind[w.several] = append(byKind[w.several], w)
	}
	for _, w := range list {
		switch same := byKind[w.several]; {
		case w.several == "" || len(same) == 1:
			texts = append(texts, w.text)
		case len(same) > 1:
			texts = append(texts, fmt.Sprintf(w.several, len(same))+": "+clientNames(same))
			byKind[w.several] = nil
		}
	}
	return texts
}

// clientNames returns the first clients of the warnings.
func clientNames(list []warning) string {
	var names []string
	for _, w := range list {
		names = append(names, "client '"+w.client+"'")
	}
	names = slices.Compact(names) // the warnings of a client are together
	if more := len(names) - maxWarnedClients; more > 0 {
		names = append(names[:maxWarnedClients], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
