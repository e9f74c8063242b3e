package clients

import (
	"fmt"
	"time"
)

// Warning is about a client that an operator should look at.
type Warning struct {
	// Client is its client_id, which Text names.
	Client, Text string
	// Several is what is said of that many warnings of the same kind, in place of
	// their texts; "" if each is reported.
	Several string
}

// warn adds a warning about the client that is being made.
func (m *clientMaker) warn(several, format string, args ...any) {
	id := m.client.ID
	m.warnings = append(m.warnings, Warning{Client: id, Several: several, Text: "client '" + id + "': " + fmt.Sprintf(format, args...)})
}

// warnEnded warns about the last credential if it has ended.
func (m *clientMaker) warnEnded() {
	if cred := &m.credentials[len(m.credentials)-1]; cred.Ended(m.now) {
		m.warn("%d credentials have ended; remove them", "%s '%s' ended at %s; remove it", cred.Kind, cred.Value, cred.Until().UTC().Format(time.RFC3339))
	}
}
