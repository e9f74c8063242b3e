package validators

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
)

// nameConstraints is the extension of RFC 5280 §4.2.1.10.
type nameConstraints struct {
	Permitted []generalSubtree `asn1:"optional,tag:0"`
	Excluded  []generalSubtree `asn1:"optional,tag:1"`
}

type generalSubtree struct {
	Base    asn1.RawValue
	Minimum int `asn1:"optional,tag:0"`
	Maximum int `asn1:"optional,tag:1,default:-1"`
}

// directoryName is the tag of a distinguished name in a GeneralName.
const directoryName = 4

var oidEmailAddress = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

// checkConstraints returns an error for a CA with name constraints that
// [x509.Certificate.Verify] does not enforce on a certificate below it: the CA
// could issue names that its own issuer meant to withhold from it.
func checkConstraints(ca, below *x509.Certificate) error {
	if err := checkNameConstraints(ca); err != nil {
		return err
	}
	// Without email addresses among the alternative names, the constraint applies
	// to those in the subject (RFC 5280 §4.2.1.10).
	if len(ca.PermittedEmailAddresses)+len(ca.ExcludedEmailAddresses) > 0 && len(below.EmailAddresses) == 0 {
		for _, attribute := range below.Subject.Names {
			if attribute.Type.Equal(oidEmailAddress) {
				return errors.New("its email name constraints cannot be enforced on the emailAddress of a subject; issue the certificate with the address as a subject alternative name")
			}
		}
	}
	return nil
}

// checkNameConstraints returns an error for a CA whose name constraints restrict
// distinguished names, which Go ignores unless the extension is critical.
func checkNameConstraints(ca *x509.Certificate) error {
	der := extension(ca, oidNameConstraints)
	if der == nil {
		return nil
	}
	var constraints nameConstraints
	if rest, err := asn1.Unmarshal(der, &constraints); err != nil || len(rest) > 0 {
		return errors.New("its name constraints are invalid")
	}
	for _, subtrees := range [][]generalSubtree{constraints.Permitted, constraints.Excluded} {
		for _, subtree := range subtrees {
			if subtree.Base.Class == asn1.ClassContextSpecific && subtree.Base.Tag == directoryName {
				return errors.New("its name constraints restrict directory names, which cannot be enforced; use a CA without them")
			}
			if subtree.Minimum != 0 || subtree.Maximum != -1 {
				return errors.New("its name constraints have a minimum or maximum, which RFC 5280 forbids")
			}
		}
	}
	return nil
}
