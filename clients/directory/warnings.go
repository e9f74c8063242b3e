package directory

import (
	"fmt"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// maxWarnedClients is how many clients a warning about several names.
const maxWarnedClients = 10

// warningList collects warnings. It keeps only what is reported of them.
type warningList struct {
	kinds map[string]*warningKind // by what is said of several
	order []*warningKind
	more  int // warnings that are only counted
}

// warningKind is warnings of which the first, and the first clients, are kept.
type warningKind struct {
	first   clients.Warning
	count   int
	clients []string
	more    int // clients that are only counted
	last    string
}

// add adds the warnings about a client.
func (l *warningList) add(list []clients.Warning) {
	for _, w := range list {
		kind := l.kinds[w.Several]
		if w.Several == "" || kind == nil {
			if len(l.order) == maxWarnings {
				l.more++
				continue
			}
			kind = &warningKind{first: w}
			l.order = append(l.order, kind)
		}
		if w.Several != "" {
			if l.kinds == nil {
				l.kinds = make(map[string]*warningKind)
			}
			l.kinds[w.Several] = kind
		}
		kind.add(w.Client)
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
			texts = append(texts, kind.first.Text)
			continue
		}
		names := "client '" + strings.Join(kind.clients, "', client '") + "'"
		if kind.more > 0 {
			names += fmt.Sprintf(", %d more", kind.more)
		}
		texts = append(texts, fmt.Sprintf(kind.first.Several, kind.count)+": "+names)
	}
	if l.more > 0 {
		texts = append(texts, fmt.Sprintf("%d more warnings", l.more))
	}
	return texts
}
