package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"github.com/caddyserver/certmagic"

	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/clientcert"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxStorageText bounds the name of a storage, and those of CAs, in an error, in bytes.
const maxStorageText = 200

// caFlags say which CA signs.
type caFlags struct {
	id                       string
	admin                    adminFlags // of a running Caddy, or the file of its configuration
	intermediate             bool
	certificateFile, keyFile string
	selfSigned               bool
}

// ca returns the CA that signs, or nil if the certificate is self-signed, and the line of
// a Caddyfile that trusts the CA.
func (f *caFlags) ca(in io.Reader) (ca *clientcert.CA, trust string, err error) {
	switch {
	case f.selfSigned:
		return nil, "", nil
	case f.certificateFile != "":
		ca, err = f.fromFiles(in)
		return ca, fmt.Sprintf("trust_pool file %q", f.certificateFile), err
	}
	ca, err = f.fromCaddy()
	return ca, "trust_pool pki_root " + f.id, err
}

// fromFiles reads the CA from files. The certificate comes first; those that follow are
// above it.
func (f *caFlags) fromFiles(in io.Reader) (*clientcert.CA, error) {
	certificates, unreadable, err := certfile.Read(in, f.certificateFile, new(certfile.Password))
	if err != nil {
		return nil, err
	}
	if len(unreadable) > 0 {
		return nil, fmt.Errorf("%s: %s", f.certificateFile, unreadable[0])
	}
	key, err := certfile.ReadKey(f.keyFile)
	if err != nil {
		return nil, err
	}
	ca := &clientcert.CA{Certificate: certificates[0], Key: key, Lasting: certificates[0]}
	for _, certificate := range certificates {
		if !selfSigned(certificate) { // a client presents no root
			ca.Chain = append(ca.Chain, certificate)
		}
	}
	return ca, nil
}

// fromCaddy loads an internal CA of Caddy as the configuration says, from its files or
// from storage. It creates none.
func (f *caFlags) fromCaddy() (*clientcert.CA, error) {
	whole, err := f.configuration()
	if err != nil {
		return nil, err
	}
	config, ctx, err := whole.provision()
	if err != nil {
		return nil, err
	}
	pki, err := onlyCA(whole.Apps["pki"], f.id)
	if err != nil {
		return nil, err
	}
	if err := caExists(ctx, pki, f.id); err != nil {
		return nil, err
	}
	config.AppsRaw["pki"] = pki
	app, err := ctx.App("pki")
	if err != nil {
		return nil, fmt.Errorf("CA '%s': %w", f.id, err)
	}
	ca, err := app.(*caddypki.PKI).GetCA(ctx, f.id)
	if err != nil {
		return nil, err
	}
	return f.signer(ca)
}

// configuration returns that of a running Caddy or of a file. Without either, Caddy has an
// empty one.
func (f *caFlags) configuration() (*configFile, error) {
	whole := new(configFile)
	if f.admin.address != "" {
		answer, err := f.admin.ask(http.MethodGet, "/config/", nil, nil)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(answer.body, whole); err != nil {
			return nil, errUnreadable(err)
		}
		return whole, nil
	}
	file := f.admin.config
	if _, err := os.Stat("Caddyfile"); file == "" && err == nil {
		file = "Caddyfile"
	}
	if file == "" {
		return whole, nil
	}
	return readConfig(file, f.admin.adapter)
}

// pkiConfig is the configuration of Caddy's pki app.
type pkiConfig struct {
	CAs map[string]json.RawMessage `json:"certificate_authorities,omitempty"`
}

// onlyCA returns the configuration of the pki app with only the CA. Caddy would create
// the others.
func onlyCA(app json.RawMessage, id string) (json.RawMessage, error) {
	var config pkiConfig
	if app != nil {
		if err := json.Unmarshal(app, &config); err != nil {
			return nil, fmt.Errorf("the pki app: %w", err)
		}
	}
	ca, ok := config.CAs[id]
	switch {
	case ok:
	case id == caddypki.DefaultCAID:
		ca = json.RawMessage("{}")
	default:
		known := slices.Sorted(maps.Keys(config.CAs))
		if !slices.Contains(known, caddypki.DefaultCAID) {
			known = append(known, caddypki.DefaultCAID)
		}
		return nil, fmt.Errorf("the configuration has no CA '%s'; use --ca %s", source.Text(id, maxCell), source.Text(strings.Join(known, " or "), maxStorageText))
	}
	return json.Marshal(pkiConfig{map[string]json.RawMessage{id: ca}})
}

// caExists returns an error unless storage has the parts of the CA that Caddy would
// otherwise create.
func caExists(ctx caddy.Context, pki json.RawMessage, id string) error {
	var app caddypki.PKI
	if err := json.Unmarshal(pki, &app); err != nil {
		return fmt.Errorf("CA '%s': %w", id, err)
	}
	ca, storage := app.CAs[id], ctx.Storage()
	if ca == nil {
		return fmt.Errorf("CA '%s' is null; write {}", id)
	}
	if ca.StorageRaw != nil {
		module, err := ctx.LoadModule(ca, "StorageRaw")
		if err != nil {
			return fmt.Errorf("the storage of CA '%s': %w", id, err)
		}
		if storage, err = module.(caddy.StorageConverter).CertMagicStorage(); err != nil {
			return fmt.Errorf("the storage of CA '%s': %w", id, err)
		}
	}
	for name, inFile := range map[string]bool{"root.crt": ca.Root != nil, "intermediate.crt": ca.Intermediate != nil} {
		key := path.Join("pki", "authorities", certmagic.StorageKeys.Safe(id), name)
		if !inFile && !storage.Exists(ctx, key) {
			return fmt.Errorf("storage '%s' has no CA '%s' (%s); run this as the user that Caddy runs as, and name its configuration with --config. Caddy creates the CA when a configuration first uses it, as 'tls internal' does",
				source.Text(fmt.Sprint(storage), maxStorageText), id, key)
		}
	}
	return nil
}

// signer returns the root of a CA, or its intermediate if that is asked for. Caddy
// renews the intermediate every few days, and no certificate outlives its CA.
func (f *caFlags) signer(ca *caddypki.CA) (*clientcert.CA, error) {
	if f.intermediate {
		chain := ca.IntermediateCertificateChain()
		if len(chain) == 0 || ca.IntermediateKey() == nil {
			return nil, fmt.Errorf("CA '%s' has no intermediate with a key; sign without --intermediate", f.id)
		}
		return &clientcert.CA{Certificate: chain[0], Key: ca.IntermediateKey(), Chain: chain, Lasting: ca.RootCertificate()}, nil
	}
	key, err := ca.RootKey()
	if err == nil && key == nil {
		err = errors.New("its configuration names none")
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the root of CA '%s': %w; sign with --intermediate, or with another CA", f.id, err)
	}
	return &clientcert.CA{Certificate: ca.RootCertificate(), Key: key, Lasting: ca.RootCertificate()}, nil
}
