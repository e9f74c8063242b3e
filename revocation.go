package mtlsauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
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
	// Files, or http and https URLs, of CRLs (RFC 5280 §5): one in DER, or any number
	// in PEM, as nginx and HAProxy read them. Files are watched, URLs are fetched in
	// the background. What a CRL of the CA lists is revoked, whatever the scope and
	// age of the CRL. A CRL that is broken does not replace the previous one.
	CRL []string `json:"crl,omitempty"`

	// How often CRLs are fetched from URLs, at least `1m`; earlier if their next
	// update is earlier. Default: `1h`.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	// URLs of OCSP responders (RFC 6960). They are asked when a certificate is seen
	// for the first time, which may delay that request by up to three seconds, and
	// in the background afterwards.
	OCSP []string `json:"ocsp,omitempty"`

	// CAs that publish no revocations, by the SHA-256 of their certificates or public
	// keys. No answer is needed about the certificates that they have issued. The deny
	// file counts for them too.
	Exempt []string `json:"exempt,omitempty"`

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

	exempt    revocation.Exempt
	unmatched map[[sha256.Size]byte]bool // exempt hashes that have been warned about
	denyPath  string                     // as it is configured
	trustPool *trustpool.Pool            // nil without a trust pool
	logger    *zap.Logger
	now       func() time.Time
	// sourceRead is told each outcome of reading a source
	sourceRead func(name string, err error)
	// ended reports whether the configuration has ended. Then the files that it watches
	// may be gone, and the next one reports those that it watches too.
	ended func() bool
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
	if len(c.Exempt) > 0 && len(c.CRL)+len(c.OCSP) == 0 {
		return errors.New("exempt has no effect with deny alone, which counts for exempt CAs too; remove it, or add crl or ocsp")
	}
	if c.Refresh != 0 {
		return checkRefresh(c.Refresh)
	}
	return nil
}

// checkExempt returns an error for a value that is not a SHA-256.
func checkExempt(value string) error {
	_, err := validators.ParseSHA256(value)
	return err
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
	crls, err := caddyfileutil.ExpandAll("crl", config.CRL)
	if err != nil {
		return nil, err
	}
	responders, err := caddyfileutil.ExpandAll("ocsp", config.OCSP)
	if err != nil {
		return nil, err
	}
	for _, url := range responders {
		if err := source.CheckURL(url); err != nil {
			return nil, fmt.Errorf("ocsp '%s': %w", source.ShownURL(url), err)
		}
	}
	exempt, err := parseExempt(config.Exempt)
	if err != nil {
		return nil, err
	}
	r := &certificateRevocation{
		exempt: exempt,
		cache:  revocation.NewOCSPCache(), denyPath: config.Deny, trustPool: trustPool,
		logger: realm.logger, now: realm.app.Now, sourceRead: realm.events.SourceRead,
		ended: func() bool { return realm.app.ctx.Err() != nil },
	}
	var running *certificateRevocation
	if before := realm.running(); before.revocation != nil {
		running = before.revocation
		r.cache = running.cache
	}
	fetcher := revocation.NewFetcher(realm.trust.network)
	r.checker = revocation.NewChecker(revocation.Config{
		Ask:              fetcher.Ask,
		CRLs:             len(crls) > 0,
		CAs:              r.trustedCAs,
		AwaitCRLs:        r.awaitCRLs,
		CRLFailures:      r.crlFailures,
		Exempt:           exempt,
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
			Fetch:     fetcher.CRL,
			Refresh:   time.Duration(config.Refresh),
			Now:       r.now,
			Report:    func(place string, err error) { r.report("crl", place, "crl:"+place, err) },
			ReportStale: func(place string, err error) {
				r.logger.Warn("stale CRL no longer vouches for any certificate", zap.String("source", "crl"), zap.String("place", place), zap.Error(err))
			},
			ReportPartial: func(place string, err error) {
				r.logger.Warn("CRL counts for what it lists but vouches for no certificate", zap.String("source", "crl"), zap.String("place", place), zap.Error(err))
			},
			ReportForeign: func(place string, err error) {
				r.logger.Warn("CRL has the name of a CA in the trust pool but does not cover its certificates", zap.String("source", "crl"), zap.String("place", place), zap.Error(err))
			},
			ReportGone: func(place, issuer string) {
				r.logger.Warn("CRL no longer in its source", zap.String("source", "crl"), zap.String("place", place), zap.String("issuer", issuer))
			},
			ReportUncovered: r.reportUncovered(len(responders) > 0),
			Exempt:          exempt,
			Use:             r.checker.SetCRLs,
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
		if !realm.app.withoutIssuers { // servers may start before this app does
			r.crls.Begin(revocation.DefaultOCSPTimeout)
		}
	}
	r.reportUnmatched()
	if config.Deny != "" {
		path, err := caddyfileutil.Expand(config.Deny)
		if err != nil {
			return nil, fmt.Errorf("deny '%s': %w", config.Deny, err)
		}
		if r.deny, err = revocation.OpenDenyFile(path, r.now()); err != nil {
			return nil, err
		}
		r.deny.Shorter = func(before, after int) {
			r.logger.Warn("deny file has fewer rules than before",
				zap.String("file", path), zap.Int("before", before), zap.Int("after", after))
		}
		if running != nil && running.deny != nil {
			r.deny.TakeOver(running.deny)
		}
		r.checker.SetDenyList(r.deny.List())
	}
	return r, nil
}

// parseExempt reads the hashes of exempt CAs.
func parseExempt(values []string) (exempt revocation.Exempt, err error) {
	if values, err = caddyfileutil.ExpandAll("exempt", values); err != nil {
		return nil, err
	}
	for _, value := range values {
		sum, err := validators.ParseSHA256(value)
		if err != nil {
			return nil, fmt.Errorf("exempt '%s': %w", value, err)
		}
		exempt = append(exempt, sum)
	}
	return exempt, nil
}

// reportUncovered returns a function that logs that no CRL covers a CA, nil if
// responders may.
func (r *certificateRevocation) reportUncovered(responders bool) func(*x509.Certificate) {
	if responders {
		return nil
	}
	return func(ca *x509.Certificate) {
		sum := sha256.Sum256(ca.Raw)
		r.logger.Warn("no CRL covers a CA of the trust pool",
			zap.String("ca", dn.Format(ca.RawSubject)), zap.String("thumbprint", hex.EncodeToString(sum[:])),
			zap.String("hint", "add its CRL to crl or, if it publishes none, its thumbprint to exempt"))
	}
}

// reportUnmatched logs once which exempt hashes are those of no CA in the trust pool.
func (r *certificateRevocation) reportUnmatched() {
	unmatched := make(map[[sha256.Size]byte]bool)
	for _, sum := range r.exempt.Unmatched(r.trustedCAs()) {
		unmatched[sum] = true
		if !r.unmatched[sum] {
			r.logger.Warn("exempt hash is that of no CA in the trust pool", zap.String("hash", hex.EncodeToString(sum[:])),
				zap.String("hint", "check it, unless it is the hash of an intermediate that clients present"))
		}
	}
	r.unmatched = unmatched
}

// exemptIssuers returns the names of the exempt CAs that may have issued certificates
// of a presented chain.
func (r *certificateRevocation) exemptIssuers(presented []*x509.Certificate) (names []string) {
	for _, ca := range slices.Concat(presented[1:], r.trustedCAs()) {
		name := dn.Format(ca.RawSubject)
		issued := func(cert *x509.Certificate) bool { return bytes.Equal(cert.RawIssuer, ca.RawSubject) }
		if r.exempt.Has(ca) && slices.ContainsFunc(presented, issued) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// awaitCRLs waits for the first CRLs after a start.
func (r *certificateRevocation) awaitCRLs(ctx context.Context) {
	if r.crls != nil {
		r.crls.Await(ctx)
	}
}

// crlFailures describes the sources of CRLs that fail, for the detail of a refusal.
func (r *certificateRevocation) crlFailures() string {
	if r.crls == nil {
		return ""
	}
	return r.crls.Failures()
}

// generation returns a number that changes whenever a verdict may no longer hold.
func (r *certificateRevocation) generation() uint64 {
	if r == nil {
		return 0
	}
	return r.checker.Generation()
}

// report logs the outcome of reading a source, which the metrics call by that name.
func (r *certificateRevocation) report(kind, place, name string, err error) {
	if r.ended() {
		return
	}
	r.sourceRead(name, err)
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
		r.report("deny", r.denyPath, status.SourceDeny, err)
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
	r.reportUnmatched()
}
