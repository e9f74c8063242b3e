package mtlsauth

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// parseBlock reads a block of options, as [caddyfileutil.ParseBlock] does.
func parseBlock(d *caddyfile.Dispenser, kind string, options caddyfileutil.Options) error {
	return caddyfileutil.ParseBlock(d, kind, options, allBlocks)
}

// allBlocks returns the options of all blocks, for the error about a word in the wrong
// one.
func allBlocks() []caddyfileutil.Named {
	return []caddyfileutil.Named{
		{Block: "mtls", Options: new(Realm).options()},
		{Block: "client", Options: clientOptions(new(clients.Record), new([]string), new([]string))},
		{Block: "fetch", Options: new(FetchConfig).options()},
		{Block: "revocation", Options: new(Revocation).options()},
		{Block: "forwarded_certificate", Options: new(ForwardedCertificate).options()},
		{Block: "refusals", Options: new(RefusalsConfig).options()},
		{Block: "certificate_expiring", Options: new(CertificateExpiring).options()},
		{Block: "issuer", Options: new(IssuerConfig).options()},
		{Block: "resource", Options: resourceOptions(new(tokens.Resource))},
		{Block: "mtls_auth", Options: new(Handler).options()},
		{Block: "forward_certificate", Options: new(ForwardCertificate).options()},
		{Block: "forward_token", Options: new(ForwardToken).options()},
		{Block: "mtls_issuer", Options: new(IssuerHandler).options()},
		{Block: "mtls_bearer", Options: new(BearerHandler).options()},
		{Block: "trust_issuer", Options: new(TrustedIssuer).options()},
	}
}
