package clients

import (
	"fmt"
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

// warningList collects warnings. It keeps only what is reported of them.
type warningList struct {
	kinds map[string]*warningKind // by what is said of several
	order []*warningKind
	more  int // warnings that are only counted
}

// warningKind is warnings of which the first, and the first clients, are kept.
type warningKind struct {
	first   warning
	count   int
	clients []string
	more    int // clients that are only counted
	last    string
}

// add adds the warnings about a client.
func (l *warningList) add(list []warning) {
	for _, w := range list {
		kind := l.kinds[w.several]
		if w.several == "" || kind == nil {
			if len(l.order) == maxWarnings {
				l.more++
				continue
			}
			kind = &warningKind{first: w}
			l.order = append(l.order, kind)
		}
		if w.several != "" {
			if l.kinds == nil {
				l.kinds = make(map[string]*warningKind)
			}
			l.kinds[w.several] = kind
		}
		kind.add(w.client)
	}
}

func (k *warningKind) add(client string) {
	k.count++
	switch { // the warnings of a client are together
	case k.last == client:
	case len(k.clients) == maxWarnedClients:
		k.more++
	default:
		k.clients = append(k.clients, client)
	}
	k.last = client
}

// texts returns the texts to report: one for all warnings of a kind.
func (l *warningList) texts() (texts []string) {
	for _, kind := range l.order {
		if kind.count == 1 {
			texts = append(texts, kind.first.text)
			continue
		}
		names := "client '" + strings.Join(kind.clients, "', client '") + "'"
		if kind.more > 0 {
			names += fmt.Sprintf(", %d more", kind.more)
		}
		texts = append(texts, fmt.Sprintf(kind.first.several, kind.count)+": "+names)
	}
	if l.more > 0 {
		texts = append(texts, fmt.Sprintf("%d more warnings", l.more))
	}
	return texts
}
