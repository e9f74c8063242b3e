package clients

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const maxClientIDLength = 200

// CheckID returns why id is not a valid client identifier. The allowed characters
// are a subset of those in RFC 6749 §2.2 that is safe in headers, URLs and logs.
func CheckID(id string) error {
	if id == "" {
		return errors.New("client_id is empty; name the client")
	}
	if len(id) > maxClientIDLength {
		return fmt.Errorf("client_id '%.40s…' has %d characters; at most %d are allowed", id, len(id), maxClientIDLength)
	}
	if strings.HasSuffix(id, ",") {
		return fmt.Errorf("client_id '%s' ends with a comma; remove it, and separate several by spaces alone", id)
	}
	for i, char := range id {
		if !isAlphanumeric(id[i]) && strings.IndexByte("._~:@/+-,", id[i]) < 0 {
			return fmt.Errorf("client_id %q contains %q; use letters, digits and ._~:@/+-,", id, char)
		}
	}
	return nil
}

// CheckSubject returns why subject is not a valid declared subject.
func CheckSubject(subject string) error {
	_, err := dn.Parse(subject)
	return err
}

// CheckName returns a function that checks subject alternative names of a kind.
func CheckName(kind Kind) func(string) error {
	return func(name string) error {
		_, err := validators.ParseName(validators.NameKind(kind), name)
		return err
	}
}

// CheckThumbprint returns why pin is not a valid thumbprint, which may have an end:
// "<hash> until <RFC 3339 time>".
func CheckThumbprint(pin string) error {
	_, _, _, err := parsePin(pin, validators.ParseThumbprint)
	return err
}

// CheckPublicKey is [CheckThumbprint] for the SHA-256 hash of a public key.
func CheckPublicKey(pin string) error {
	_, _, _, err := parsePin(pin, validators.ParseSHA256)
	return err
}

// CheckJWKSURI returns why address is not a valid URL of a JWK Set. It must be an
// https URL, because a JWK Set is trusted for where it comes from.
func CheckJWKSURI(address string) error { return source.CheckSecureURL(address) }

// CheckIssuedBy returns why hash is not a valid SHA-256 hash of a CA certificate or
// its public key.
func CheckIssuedBy(hash string) error {
	_, err := validators.ParseSHA256(hash)
	return err
}

// CheckTokenLifetime returns why d is not a valid token lifetime. Tokens count
// whole seconds (RFC 7519 §2).
func CheckTokenLifetime(d time.Duration) error {
	if d < time.Second {
		return fmt.Errorf("token_lifetime %s is too short; use at least 1s", d)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// What a source does if a record is wrong, as configurations say it in on_bad_record:
// see SkipBad of [SourceInfo].
const (
	OnBadRecordRefuse = "refuse"
	OnBadRecordSkip   = "skip"
)

// CheckOnBadRecord reports why a value of on_bad_record is not valid.
func CheckOnBadRecord(value string) error {
	if value != OnBadRecordRefuse && value != OnBadRecordSkip {
		return fmt.Errorf("unknown word; use %s or %s", OnBadRecordRefuse, OnBadRecordSkip)
	}
	return nil
}
