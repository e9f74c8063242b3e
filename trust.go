package mtlsauth

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// trustSource is what a trust pool's JSON tells about where its CA
// certificates come from.
type trustSource struct {
	Provider string            `json:"provider"`
	PEMFiles []string          `json:"pem_files"`
	Sources  []json.RawMessage `json:"sources"`
}

// trust is a loaded trust pool.
type trust struct {
	pool *validators.TrustPool
	// system tells that the operating system's CAs are trusted.
	system bool
	// cas is the number of CA certificates, zero when the module does not tell.
	cas int
}

// loadTrust loads the trust pool module. Caddy's own modules start with a file
// that holds no certificate, and then lock everyone out; here it is an error.
func loadTrust(ctx caddy.Context, realm *Realm) (*trust, error) {
	source, err := checkTrustSource(ctx, realm.TrustPoolRaw)
	if err != nil {
		return nil, err
	}
	module, err := ctx.LoadModule(realm, "TrustPoolRaw")
	if err != nil {
		return nil, err
	}
	ca, ok := module.(caddytls.CA)
	if !ok {
		return nil, fmt.Errorf("module %T is no pool of CA certificates", module)
	}
	pool := ca.CertPool()
	if pool == nil || pool.Equal(x509.NewCertPool()) {
		return nil, errors.New("it has no CA certificate, so no chain could ever verify; add one or remove trust_pool")
	}
	t := &trust{pool: validators.NewTrustPool(pool), system: source.Provider == "system"}
	if provider, ok := module.(caddytls.CertificateProvider); ok {
		distinct := make(map[string]struct{})
		for _, ca := range provider.Certificates() {
			distinct[string(ca.Raw)] = struct{}{}
		}
		t.cas = len(distinct)
	}
	return t, nil
}

func checkTrustSource(ctx caddy.Context, raw json.RawMessage) (trustSource, error) {
	var source trustSource
	if err := json.Unmarshal(raw, &source); err != nil {
		return source, err
	}
	if strings.HasPrefix(source.Provider, "pki_") {
		// these modules ask for the pki app only where it has been loaded
		// already, and apps load in any order
		if _, err := ctx.App("pki"); err != nil {
			return source, err
		}
	}
	for _, file := range source.PEMFiles {
		if err := checkPEMFile(file); err != nil {
			return source, err
		}
	}
	for _, nested := range source.Sources {
		if _, err := checkTrustSource(ctx, nested); err != nil {
			return source, err
		}
	}
	return source, nil
}

// pemBegin finds where a PEM block means to begin.
var pemBegin = regexp.MustCompile(`(?m)^(?:\x{FEFF})?[ \t]*-----BEGIN `)

// checkPEMFile refuses a file without a certificate and one whose certificates
// do not parse, with the line where the trouble is.
func checkPEMFile(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	found, rest := 0, text
	var other string
	for {
		block, after := pem.Decode(rest)
		if block == nil {
			after = nil
		}
		// Go passes over a block that is damaged or does not begin its line,
		// and its CA would be missing
		begins := pemBegin.FindAllIndex(rest[:len(rest)-len(after)], 2)
		if len(begins) == 0 {
			break
		}
		line := 1 + bytes.Count(text[:len(text)-len(rest)+begins[0][0]], []byte("\n"))
		if block == nil || len(begins) > 1 {
			return fmt.Errorf("file '%s', line %d: a PEM block is damaged, cut off or indented; copy it again", file, line)
		}
		rest = after
		if block.Type != "CERTIFICATE" {
			other = block.Type
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("file '%s', line %d: the certificate does not parse: %w; copy it again", file, line, err)
		}
		found++
	}
	switch {
	case found > 0:
		return nil
	case other != "":
		return fmt.Errorf("file '%s' holds a PEM block %q but no certificate; put the CA's certificate there", file, other)
	}
	return fmt.Errorf("file '%s' holds no PEM certificate; put the CA's certificate there, in PEM", file)
}
