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

// credentialWarnings returns what an operator should change about the credentials of
// a client.
func credentialWarnings(c *Client, now time.Time) (list []warning) {
	for _, cred := range c.Credentials {
		if cred.IsSHA1() {
			list = append(list, warning{
				client: c.ID, several: "%d thumbprints are SHA-1, which can be forged; replace them with SHA-256 thumbprints",
				text: fmt.Sprintf("client '%s': thumbprint '%s' is SHA-1, which can be forged; replace it with the SHA-256 thumbprint", c.ID, cred.Value),
			})
		}
		if cred.Kind == KindSubject && cred.dn.LooksReversed() {
			list = append(list, warning{
				client: c.ID,
				text:   fmt.Sprintf("client '%s': subject '%s' is in the order in which OpenSSL prints names; if no certificate matches, reverse it as RFC 4514 does: '%s'", c.ID, cred.Value, cred.dn.Reversed()),
			})
		}
		if cred.Ended(now) {
			list = append(list, warning{
				client: c.ID, several: "%d credentials have ended; remove them",
				text: fmt.Sprintf("client '%s': %s '%s' ended at %s; remove it", c.ID, cred.Kind, cred.Value, cred.Until.UTC().Format(time.RFC3339)),
			})
		}
	}
	return list
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
