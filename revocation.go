package mtlsauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

// The values of on_unavailable.
const (
	unavailableRefuse = "refuse"
	unavailableAllow  = "allow"
)

// Revocation configures how revoked certificates are recognized. Every certificate
// of a verified chain but its anchor is checked. A certificate is revoked if any
// source says so; otherwise a fresh answer of one source is enough.
type Revocation struct {
	// Files, or http and https URLs, of CRLs (RFC 5280 §5) in DER or PEM, one CRL
	// each. Files are watched, URLs are fetched in the background. A CRL that is
	// broken, partial or indirect does not replace the previous one.
	CRL []string `json:"crl,omitempty"`

	// How often CRLs are fetched from URLs, at least `1m`; earlier if their next
	// update is earlier. Default: `1h`.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	// URLs of OCSP responders (RFC 6960). They are asked when a certificate is seen
	// for the first time, which may delay that request by up to three seconds, and
	// in the background afterwards.
	OCSP []string `json:"ocsp,omitempty"`

	// What happens when neither a CRL nor a responder has a fresh answer: `refuse`
	// (the default) or `allow`.
	OnUnavailable string `json:"on_unavailable,omitempty"`

	// A file of certificates that are refused at once, even pinned ones. One rule a
	// line: `serial <hex> <issuer DN>`, `public_key <SHA-256>`, `tbs <SHA-256>`,
	// `thumbprint <SHA-256 or SHA-1>`. The file is watched.
	Deny string `json:"deny,omitempty"`
}

// certificateRevocation checks certificates of a realm, and keeps its sources up to
// date.
type certificateRevocation struct {
	checker *revocation.Checker
	cache   *revocation.OCSPCache
	crls    *revocation.CRLSource // nil without CRLs
	deny    *revocation.DenyFile  // nil without a deny file

	denyPath  string          // as it is configured
	trustPool *trustpool.Pool // nil without a trust pool
	logger    *zap.Logger
	now       func() time.Time
}

func checkOnUnavailable(value string) error {
	if value != unavailableRefuse && value != unavailableAllow {
		return fmt.Errorf("it is neither %s nor %s", unavailableRefuse, unavailableAllow)
	}
	return nil
}

// check returns the errors that need no file and no placeholder to be found.
func (c *Revocation) check() error {
	if len(c.CRL)+len(c.OCSP) == 0 && c.Deny == "" {
		return errors.New("it names no source; add crl, ocsp or deny")
	}
	if c.OnUnavailable != "" {
		if err := checkOnUnavailable(c.OnUnavailable); err != nil {
			return fmt.Errorf("on_unavailable '%s': %w", c.OnUnavailable, err)
		}
	}
	if c.OnUnavailable == unavailableAllow && len(c.CRL)+len(c.OCSP) == 0 {
		return errors.New("on_unavailable allow has no effect with deny alone, because that file is always available; remove it, or add crl or ocsp")
	}
	if c.Refresh != 0 {
		return checkRefresh(c.Refresh)
	}
	return nil
}

func checkRefresh(d caddy.Duration) error {
	if d < caddy.Duration(time.Minute) {
		return fmt.Errorf("refresh %s is too short; use at least 1m", time.Duration(d))
	}
	return nil
}

// newCertificateRevocation reads the files of a realm's sources. URLs are fetched
// after the start, because a configuration may be provisioned only to validate it;
// what the running configuration has of them is taken over.
func newCertificateRevocation(realm *Realm, trustPool *trustpool.Pool) (*certificateRevocation, error) {
	config := realm.Revocation
	if err := config.check(); err != nil {
		return nil, err
	}
	if trustPool == nil && len(config.CRL)+len(config.OCSP) > 0 {
		return nil, errors.New("crl and ocsp check chains, but the realm has no trust_pool; add one, or use deny alone")
	}
	crls, err := expandAll("crl", config.CRL)
	if err != nil {
		return nil, err
	}
	responders, err := expandAll("ocsp", config.OCSP)
	if err != nil {
		return nil, err
	}
	for _, url := range responders {
		if err := source.CheckURL(url); err != nil {
			return nil, fmt.Errorf("ocsp '%s': %w", url, err)
		}
	}
	r := &certificateRevocation{
		cache: revocation.NewOCSPCache(), denyPath: config.Deny, trustPool: trustPool,
		logger: realm.logger, now: realm.app.Now,
	}
	var running *certificateRevocation
	if before := realm.running(); before.revocation != nil {
		running = before.revocation
		r.cache = running.cache
	}
	r.checker = revocation.NewChecker(revocation.Config{
		CRLs:             len(crls) > 0,
		OCSP:             responders,
		AllowUnavailable: config.OnUnavailable == unavailableAllow,
		Cache:            r.cache,
		Now:              r.now,
		ReportOCSP: func(url string, err error) {
			r.logger.Debug("asked OCSP responder", zap.String("place", url), zap.Error(err))
		},
		ReportFailure: func(certificate string, err error) {
			r.logger.Error("no usable answer from any OCSP responder", zap.String("certificate", certificate), zap.Error(err))
		},
		ReportAdmitted: func(detail string) {
			r.logger.Warn("client admitted without revocation status", zap.String("detail", detail))
		},
	})
	if len(crls) > 0 {
		r.crls, err = revocation.NewCRLSource(revocation.CRLConfig{
			Locations: crls,
			Refresh:   time.Duration(config.Refresh),
			Now:       r.now,
			Report:    func(place string, err error) { r.report("crl", place, err) },
			ReportStale: func(place string, err error) {
				r.logger.Warn("stale CRL no longer vouches for any certificate", zap.String("source", "crl"), zap.String("place", place), zap.Error(err))
			},
			ReportForeign: func(place string, err error) {
				r.logger.Warn("CRL has the name of a CA in the trust pool but does not cover its certificates", zap.String("source", "crl"), zap.String("place", place), zap.Error(err))
			},
			Use: r.checker.SetCRLs,
		})
		if err != nil {
			return nil, fmt.Errorf("crl: %w", err)
		}
		if running != nil && running.crls != nil {
			r.crls.TakeOver(running.crls)
		}
		if err := r.crls.LoadFiles(); err != nil {
			return nil, err
		}
		r.checker.SetCRLs(r.crls.CRLs())
		r.crls.ReportProblems(r.trustedCAs())
	}
	if config.Deny != "" {
		path, err := expand(config.Deny)
		if err != nil {
			return nil, fmt.Errorf("deny '%s': %w", config.Deny, err)
		}
		if r.deny, err = revocation.OpenDenyFile(path, r.now()); err != nil {
			return nil, err
		}
		if running != nil && running.deny != nil {
			r.deny.TakeOver(running.deny)
		}
		r.checker.SetDenyList(r.deny.List())
	}
	return r, nil
}

// generation returns a number that changes whenever a verdict may no longer hold.
func (r *certificateRevocation) generation() uint64 {
	if r == nil {
		return 0
	}
	return r.checker.Generation()
}

// report logs the outcome of reading a source.
func (r *certificateRevocation) report(kind, place string, err error) {
	if err != nil {
		r.logger.Error("refreshing revocation source failed; keeping previous data", zap.String("source", kind), zap.String("place", place), zap.Error(err))
		return
	}
	r.logger.Debug("revocation source read", zap.String("source", kind), zap.String("place", place))
}

// trustedCAs returns the CAs of the trust pool that its modules list.
func (r *certificateRevocation) trustedCAs() []*x509.Certificate {
	if r.trustPool == nil {
		return nil
	}
	return r.trustPool.Trust().Certificates
}

// pollDenyFile looks at the deny file, which must not wait for large CRLs.
func (r *certificateRevocation) pollDenyFile(context.Context) {
	changed, report, err := r.deny.Poll(r.now())
	if changed {
		r.checker.SetDenyList(r.deny.List())
		r.logger.Info("deny file in force", zap.Int("rules", r.deny.List().Len()))
	}
	if report {
		r.report("deny", r.denyPath, err)
	}
}

// pollCRLs looks at the files, and fetches the URLs that are due in the background,
// so that a server that hangs does not delay the files.
func (r *certificateRevocation) pollCRLs(ctx context.Context) {
	r.crls.PollFiles()
	if r.crls.URLs() > 0 && !r.now().Before(r.crls.Next()) {
		go r.crls.Refresh(ctx)
	}
	r.crls.ReportProblems(r.trustedCAs())
}
