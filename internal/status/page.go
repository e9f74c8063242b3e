package status

import (
	"iter"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/sightings"
)

const (
	defaultClients = 50
	// MaxClients is the highest [Query.Limit].
	MaxClients = 1000
	// maxVisited is how many clients are looked at for a page. The rest is for the next.
	maxVisited = 10_000
)

// List returns a page of clients, as far as they are found within its bounds. all yields
// the clients from [Query.After] on, in the order of their client_id.
func (q Query) List(all iter.Seq[*clients.Client], seen *sightings.Table) (list []Client, next string) {
	limit := q.Limit
	if limit <= 0 {
		limit = defaultClients
	}
	limit = min(limit, MaxClients)
	list = []Client{}
	visited, last, text := 0, "", strings.ToLower(q.Text)
	for client := range all {
		if client.ID == q.After {
			continue
		}
		if len(list) == limit || visited == maxVisited {
			return list, last
		}
		visited++
		last = client.ID
		if text != "" && !strings.Contains(strings.ToLower(client.ID), text) && !strings.Contains(strings.ToLower(clients.NameIn(client.Record())), text) {
			continue
		}
		sighting, known := seen.Of(client.ID)
		if known && q.Never {
			continue
		}
		described := Client{ClientID: client.ID, Name: clients.NameIn(client.Record()), Source: client.Source(), Disabled: client.Disabled}
		if known {
			described.LastSeen, described.Credential, described.Matched = sighting.At, sighting.Kind, sighting.Matched
			described.Thumbprint, described.NotAfter = sighting.ThumbprintText(), sighting.NotAfter
		}
		list = append(list, described)
	}
	return list, ""
}
