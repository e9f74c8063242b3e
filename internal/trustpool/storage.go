package trustpool

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// storageConfig is the configuration of the module `storage`.
type storageConfig struct {
	Provider   string          `json:"provider"`
	StorageRaw json.RawMessage `json:"storage,omitempty" caddy:"namespace=caddy.storage inline_key=module"`
	PEMKeys    []string        `json:"pem_keys,omitempty"`
}

// readStorage returns the certificates in storage, as the module `storage` does.
func (l *loader) readStorage(ctx caddy.Context) (certs []*x509.Certificate, err error) {
	config := new(storageConfig)
	if err := caddy.StrictUnmarshalJSON(slices.Clone(l.raw), config); err != nil {
		return nil, fmt.Errorf("module '%s': %s", l.Provider, source.Plain(err, maxGuestText))
	}
	if len(config.PEMKeys) == 0 {
		return nil, errors.New("storage: no key is named; add keys")
	}
	var storage certmagic.Storage
	if config.StorageRaw == nil {
		storage = ctx.Storage()
	} else {
		module, err := ctx.LoadModule(config, "StorageRaw")
		if err != nil {
			return nil, fmt.Errorf("storage: %s", source.Plain(err, maxGuestText))
		}
		converter, ok := module.(caddy.StorageConverter)
		if !ok {
			return nil, fmt.Errorf("storage: module %T is not a storage module", module)
		}
		if storage, err = converter.CertMagicStorage(); err != nil {
			return nil, fmt.Errorf("storage: %s", source.Plain(err, maxGuestText))
		}
	}
	var unreadable []leftOut
	for _, key := range config.PEMKeys {
		text, err := storage.Load(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("storage key '%s': %s", key, source.Plain(err, maxGuestText))
		}
		some, left, err := parseCAFile("storage key", key, text, l.config.EndEntities)
		if err != nil {
			return nil, err
		}
		certs, unreadable = append(certs, some...), append(unreadable, left...)
	}
	var text strings.Builder
	for _, one := range unreadable {
		fmt.Fprintln(&text, one.place, one.number, one.cause)
	}
	if told := text.String(); told != l.told { // not at each refresh
		l.told = told
		l.warnLeftOut(unreadable)
	}
	return certs, nil
}
