package command

import (
	"crypto/sha1" //nolint:gosec // the thumbprint that older systems show
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"io"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// certificateFacts are what --json prints about a certificate. Members that a refusal on
// the admin API has, too, have the same names.
type certificateFacts struct {
	Subject        string    `json:"subject"`
	Names          []string  `json:"names,omitempty"`
	NamesError     string    `json:"names_error,omitempty"` // why they cannot be read
	Issuer         string    `json:"issuer"`
	SelfSigned     bool      `json:"self_signed"`
	Serial         string    `json:"serial"`
	NotBefore      time.Time `json:"not_before"`
	NotAfter       time.Time `json:"not_after"`
	Key            string    `json:"key"`
	Signature      string    `json:"signature"`
	CA             bool      `json:"ca"`
	Thumbprint     string    `json:"thumbprint"`
	ThumbprintSHA1 string    `json:"thumbprint_sha1"`
	PublicKey      string    `json:"public_key"`
}

func factsOf(c *x509.Certificate) certificateFacts {
	sum, key := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	old := sha1.Sum(c.Raw) //nolint:gosec // see above
	known := certificateFacts{
		Subject: dn.Format(c.RawSubject), Issuer: dn.Format(c.RawIssuer), SelfSigned: selfSigned(c),
		Serial: validators.FormatSerial(c.SerialNumber), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Key: keyText(c), Signature: c.SignatureAlgorithm.String(), CA: c.IsCA,
		Thumbprint: hex.EncodeToString(sum[:]), ThumbprintSHA1: hex.EncodeToString(old[:]), PublicKey: hex.EncodeToString(key[:]),
	}
	shown, err := validators.ShowNames(c)
	if err != nil {
		known.NamesError = err.Error()
		return known
	}
	for name := range shown {
		if name.Kind != "" {
			known.Names = append(known.Names, string(name.Kind)+" "+name.Text)
		}
	}
	return known
}

// inspection is what `inspect --json` prints.
type inspection struct {
	Certificates []certificateFacts `json:"certificates"`
	// Notes are about the first certificate, the client's own.
	Notes    []string `json:"notes,omitempty"`
	LeftOut  []string `json:"left_out,omitempty"`
	Register string   `json:"register"`
}

func inspectionOf(certificates []*x509.Certificate, unreadable []string, now time.Time) inspection {
	found := inspection{Notes: notesOn(certificates, now), LeftOut: unreadable, Register: clientBlock(certificates)}
	for _, c := range certificates {
		found.Certificates = append(found.Certificates, factsOf(c))
	}
	return found
}

// explained is what `explain --json` prints.
type explained struct {
	Realm    string `json:"realm"`
	Admitted bool   `json:"admitted"`
	// The client that the certificate identifies.
	ClientID      string     `json:"client_id,omitempty"`
	Credential    string     `json:"credential,omitempty"`
	Matched       string     `json:"matched,omitempty"`
	Declared      string     `json:"declared,omitempty"`
	Until         *time.Time `json:"until,omitempty"`
	Scope         string     `json:"scope,omitempty"`
	DefaultScopes []string   `json:"default_scopes,omitempty"`
	// Why the certificate is refused.
	Reason     string   `json:"reason,omitempty"`
	Detail     string   `json:"detail,omitempty"`
	Sentence   string   `json:"sentence,omitempty"`
	Remedy     string   `json:"remedy,omitempty"`
	NearMisses []string `json:"near_misses,omitempty"`
	Register   string   `json:"register,omitempty"`

	Certificate   certificateFacts `json:"certificate"`
	UnfetchedJWKS int              `json:"unfetched_jwks,omitempty"`
	UnfetchedCRLs int              `json:"unfetched_crls,omitempty"`
	Exempt        []string         `json:"exempt,omitempty"`
	Shadow        string           `json:"shadow_trust_pool,omitempty"`
	LeftOut       []string         `json:"left_out,omitempty"`
}

// WriteJSON writes the explanation of a certificate, and says which of those that came
// with it are left out because they cannot be read.
func (e *Explanation) WriteJSON(out io.Writer, leaf *x509.Certificate, unreadable []string) error {
	return printJSON(out, explanationOf(e, leaf, unreadable))
}

func explanationOf(e *Explanation, leaf *x509.Certificate, unreadable []string) explained {
	answer := explained{
		Realm: e.Realm, Admitted: e.Refusal == nil, NearMisses: e.NearMisses, Certificate: factsOf(leaf), UnfetchedJWKS: e.UnfetchedJWKS,
		UnfetchedCRLs: e.UnfetchedCRLs, Exempt: e.Exempt, Shadow: e.Shadow, LeftOut: unreadable,
	}
	if e.Registrable {
		answer.Register = pinBlock(leaf)
	}
	if e.Refusal != nil {
		answer.Reason, answer.Detail = string(e.Refusal.Reason), e.Refusal.Detail
		text, _ := reasons.Of(answer.Reason)
		text = text.Plain()
		answer.Sentence, answer.Remedy = text.Sentence, text.Remedy
		return answer
	}
	client := e.Credential.Client
	answer.ClientID, answer.Scope, answer.DefaultScopes = client.ID, client.Scope(), client.DefaultScopes
	answer.Credential, answer.Matched, answer.Declared = string(e.Credential.Kind), e.Matched, e.Credential.Value
	if until := e.Credential.Until(); !until.IsZero() {
		answer.Until = &until
	}
	return answer
}
