package mtlsauth

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// UnmarshalCaddyfile reads where revocations are known. Syntax:
//
//	revocation {
//		crl            <file-or-url>...
//		refresh        <duration>
//		ocsp           <url>...
//		on_unavailable refuse|allow
//		deny           <file>
//	}
func (c *Revocation) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch word := d.Val(); word {
		case "crl":
			err = parseList(d, &c.CRL, func(place string) error {
				if !strings.Contains(place, "://") {
					return nil
				}
				return source.CheckURL(place)
			})
		case "refresh":
			err = parseDuration(d, &c.Refresh, checkRefresh)
		case "ocsp":
			err = parseList(d, &c.OCSP, source.CheckURL)
		case "on_unavailable":
			err = parseOnce(d, &c.OnUnavailable, checkOnUnavailable)
		case "deny":
			err = parseOnce(d, &c.Deny, nil)
		default:
			err = d.Errf("unrecognized revocation option '%s'", word)
		}
		if err != nil {
			return err
		}
	}
	if err := c.check(); err != nil {
		return d.WrapErr(fmt.Errorf("revocation: %w", err))
	}
	return nil
}

// UnmarshalCaddyfile reads where TLS may end before Caddy. Syntax:
//
//	forwarded_certificate rfc9440|nginx|haproxy|envoy|aws_alb {
//		from     <cidr>...
//		peer_key <hash>...
//		header   <name>
//	}
func (c *ForwardedCertificate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	err := parseOnce(d, &c.Format, func(format string) error {
		_, err := validators.ParseForwardFormat(format)
		return err
	})
	if err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch word := d.Val(); word {
		case "from":
			err = parseList(d, &c.From, func(from string) error {
				_, err := parseFrom(from)
				return err
			})
		case "peer_key":
			err = parseList(d, &c.PeerKeys, clients.CheckIssuedBy)
		case "header":
			err = parseOnce(d, &c.Header, headerguard.CheckName)
		default:
			err = d.Errf("unrecognized forwarded_certificate option '%s'", word)
		}
		if err != nil {
			return err
		}
	}
	if len(c.From)+len(c.PeerKeys) == 0 {
		return d.WrapErr(fmt.Errorf("forwarded_certificate: %w", errAnybodyForwards))
	}
	return nil
}
