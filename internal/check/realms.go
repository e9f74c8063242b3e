package check

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxTries bounds how many errors of a realm are found.
const maxTries = 100

// cleanRealm returns a realm without what is wrong with it or cannot be known here, or
// nil if it is wrong as a whole.
func (c *checker) cleanRealm(name string, raw json.RawMessage) json.RawMessage {
	place := "realm " + name
	var realm map[string]json.RawMessage
	if json.Unmarshal(raw, &realm) != nil || realm == nil {
		c.findings.AddError(place, c.tryRealm(name, raw))
		return nil
	}
	delete(realm, "storage")
	for _, word := range []string{observed.TrustPool, observed.ShadowPool} {
		if realm[word] != nil {
			realm[word] = c.localPool(place+", "+word, realm[word])
		}
	}
	c.leaveOutSources(name, realm)
	c.noteURLs(name, realm)
	for range maxTries {
		text, _ := json.Marshal(realm)
		err := c.tryRealm(name, text)
		if err == nil {
			return text
		}
		at := place
		client := removeClient(realm, err.Error())
		switch {
		case client != "":
			at, c.partial[name] = place+", client "+client, true
		case !c.removePart(name, realm, err.Error()):
			c.findings.AddError(place, err)
			return nil
		}
		c.findings.AddError(at, err)
	}
	return nil
}

// tryRealm returns why a realm does not load.
func (c *checker) tryRealm(name string, raw json.RawMessage) error {
	ctx, cancel := caddy.NewContext(c.ctx)
	defer cancel()
	app := c.plugin.NewApp()
	text, err := json.Marshal(map[string]any{"realms": map[string]json.RawMessage{name: raw}})
	if err == nil {
		err = caddy.StrictUnmarshalJSON(text, app)
	}
	if err != nil {
		return err
	}
	err = app.Provision(ctx.WithValue(loggerKey{}, zap.NewNop()))
	_ = app.Cleanup()
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "realm '"+name+"': "))
	}
	return nil
}

// removeClient removes the client that an error is about, the last one if it names two,
// and returns its ID.
func removeClient(realm map[string]json.RawMessage, text string) string {
	var list []json.RawMessage
	_ = json.Unmarshal(realm["clients"], &list)
	for i, raw := range slices.Backward(list) {
		var client struct {
			ID string `json:"client_id"`
		}
		if json.Unmarshal(raw, &client) == nil && strings.Contains(text, "client '"+client.ID+"'") {
			realm["clients"], _ = json.Marshal(slices.Delete(list, i, i+1))
			return client.ID
		}
	}
	return ""
}

// removePart removes the part of a realm that an error is about.
func (c *checker) removePart(name string, realm map[string]json.RawMessage, text string) bool {
	for _, part := range slices.Sorted(maps.Keys(realm)) {
		if part == "clients" || !strings.HasPrefix(text, part+":") && !strings.HasPrefix(text, part+" ") {
			continue
		}
		switch part {
		case observed.TrustPool:
			if string(realm[part]) == string(anyPool()) {
				return false
			}
			realm[part] = anyPool()
			return true
		case "issuer":
			c.tokenless[name] = true
		case "clients_from":
			c.partial[name] = true
		}
		delete(realm, part)
		return true
	}
	return false
}

// leaveOutSources removes the sources of clients that are not files.
func (c *checker) leaveOutSources(name string, realm map[string]json.RawMessage) {
	var list, local []json.RawMessage
	_ = json.Unmarshal(realm["clients_from"], &list)
	for _, raw := range list {
		var from struct {
			Source string `json:"source"`
		}
		if _ = json.Unmarshal(raw, &from); from.Source == "file" || from.Source == "" {
			local = append(local, raw)
			continue
		}
		c.partial[name] = true
		c.findings.Add(CodeUnread, "realm "+name, "the clients of clients_from %s are not read, so nothing is said about them", from.Source)
	}
	if len(local) < len(list) {
		delete(realm, "clients_from")
		if local != nil {
			realm["clients_from"], _ = json.Marshal(local)
		}
	}
}

// noteURLs notes what is behind URLs, which are not fetched.
func (c *checker) noteURLs(name string, realm map[string]json.RawMessage) {
	var revocation struct {
		CRL []string `json:"crl"`
	}
	var records []struct {
		ClientID string `json:"client_id"`
		JWKSURI  string `json:"jwks_uri"`
	}
	_ = json.Unmarshal(realm["revocation"], &revocation)
	_ = json.Unmarshal(realm["clients"], &records)
	for _, crl := range revocation.CRL {
		if strings.Contains(crl, "://") {
			c.findings.Add(CodeUnread, "realm "+name+", revocation", "the CRL at '%s' is not read, so nothing is said about it", source.ShownURL(crl))
		}
	}
	for _, record := range records {
		if record.JWKSURI != "" {
			c.findings.Add(CodeUnread, "realm "+name+", client "+record.ClientID, "the JWKS at '%s' is not read, so nothing is said about it", source.ShownURL(record.JWKSURI))
		}
	}
}
