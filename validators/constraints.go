package validators

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
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

// maxComparisons is how many pairs of a constraint and a name are compared for two
// certificates: whoever operates a CA below an anchor chooses how many there are.
const maxComparisons = 1 << 16

// directoryName is the tag of a distinguished name in a GeneralName.
const directoryName = 4

// otherForms are the names of the forms that Go cannot compare (RFC 5280 §4.2.1.6).
var otherForms = map[int]string{0: "otherName", 3: "x400Address", 5: "ediPartyName", registeredID: "registeredID"}

var oidEmailAddress = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

// checkOverlooked returns an error for a chain, leaf first, that
// [x509.Certificate.Verify] accepts because it overlooks or reads too widely what a CA
// of the chain may do: the CA could issue what its own issuer meant to withhold from it.
func checkOverlooked(chain []*x509.Certificate) error {
	for i, ca := range chain {
		if i == 0 {
			continue
		}
		err := checkCA(ca)
		for j := 0; j < i && err == nil; j++ {
			err = checkNamesBelow(ca, chain[j])
		}
		if err != nil {
			return &caError{ca: ca, err: err}
		}
	}
	return nil
}

// caError is what is wrong with a CA of a chain.
type caError struct {
	ca  *x509.Certificate
	err error
}

func (e *caError) Error() string { return fmt.Sprintf("CA %q: %v", shownName(e.ca), e.err) }

// checkCA returns an error for a CA that must not issue certificates, whatever is below
// it, although Go lets it. Go takes a key usage without a bit and an empty extended key
// usage for missing ones, and a negative number in a policy constraint for no
// constraint.
func checkCA(ca *x509.Certificate) error {
	switch {
	case LacksKeyUsage(ca, x509.KeyUsageCertSign):
		return errors.New("its key usage lacks keyCertSign, so it must not issue certificates; use a CA with keyCertSign")
	case hasEmptyEKU(ca):
		return errors.New("its extended key usage is empty, so it allows nothing; use a CA with clientAuth, or without extended key usages")
	case ca.RequireExplicitPolicy < 0 || ca.InhibitPolicyMapping < 0 || ca.InhibitAnyPolicy < 0:
		return errors.New("its policy constraints have a negative number, so they cannot be enforced; use a CA without them")
	}
	return checkNameConstraints(ca)
}

// checkNameConstraints returns an error for a CA whose name constraints restrict
// distinguished names, which Go ignores unless the extension is critical, or are
// written in a way that Go misreads.
func checkNameConstraints(ca *x509.Certificate) error {
	constraints, err := nameConstraintsOf(ca)
	if err != nil {
		return err
	}
	for _, subtree := range slices.Concat(constraints.Permitted, constraints.Excluded) {
		if subtree.isForm(directoryName) {
			return errors.New("its name constraints restrict directory names, which cannot be enforced; use a CA without them")
		}
		if subtree.Minimum != 0 || subtree.Maximum != -1 {
			return errors.New("its name constraints have a minimum or maximum, which RFC 5280 forbids; use a CA without them")
		}
	}
	for _, network := range slices.Concat(ca.PermittedIPRanges, ca.ExcludedIPRanges) {
		if inside := network.IP.Mask(network.Mask); !slices.Equal(inside, network.IP) {
			return fmt.Errorf("its name constraints have the IP network %s, whose address has bits outside its mask, so it cannot be enforced; use a CA with %s",
				network, &net.IPNet{IP: inside, Mask: network.Mask})
		}
	}
	return nil
}

// nameConstraintsOf reads the extension of a CA. Without one, all are empty.
func nameConstraintsOf(ca *x509.Certificate) (constraints nameConstraints, err error) {
	der := extension(ca, oidNameConstraints)
	if der == nil {
		return constraints, nil
	}
	if rest, err := asn1.Unmarshal(der, &constraints); err != nil || len(rest) > 0 {
		return constraints, errors.New("its name constraints are invalid; use a CA without them")
	}
	return constraints, nil
}

func (s *generalSubtree) isForm(tag int) bool {
	return s.Base.Class == asn1.ClassContextSpecific && s.Base.Tag == tag
}

// checkNamesBelow returns an error for a name that the constraints of a CA above do not
// permit although Go does: Go permits the hosts below a permitted host, which RFC 5280
// §4.2.1.10 does only if the constraint begins with a period, excludes no IPv4 address
// in IPv6 form, compares no names in the subject, and ignores constraints of forms that
// it does not know unless they are critical.
func checkNamesBelow(ca, below *x509.Certificate) error {
	if extension(ca, oidNameConstraints) == nil {
		return nil
	}
	names := len(below.EmailAddresses) + len(below.URIs) + len(below.IPAddresses)
	if names*(len(ca.PermittedEmailAddresses)+len(ca.PermittedURIDomains)+len(ca.ExcludedIPRanges)) > maxComparisons {
		return errors.New("its name constraints and the names of a certificate below are too many to compare; use a CA with fewer, or issue the certificate with fewer")
	}
	for _, address := range below.EmailAddresses {
		if !permitsEmail(ca.PermittedEmailAddresses, address) {
			return fmt.Errorf("its name constraints do not permit the e-mail address %q, because a permitted host does not stand for the hosts below it; have the certificate issued without it, or by a CA that permits it", syntax.FirstBytes(address, maxShownName))
		}
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
	for _, uri := range below.URIs {
		if !permitsHost(ca.PermittedURIDomains, uri.Hostname()) {
			return fmt.Errorf("its name constraints do not permit the URI host %q, because a permitted host does not stand for the hosts below it; have the certificate issued without it, or by a CA that permits it", syntax.FirstBytes(uri.Hostname(), maxShownName))
		}
	}
	for _, ip := range below.IPAddresses {
		for _, network := range ca.ExcludedIPRanges {
			if len(ip) == len(network.IP) && slices.Equal(ip.Mask(network.Mask), network.IP) {
				return fmt.Errorf("its name constraints exclude the IP address %s, by the network %s; have the certificate issued without it", ip, network)
			}
		}
	}
	return checkOtherForms(ca, below)
}

// checkOtherForms returns an error if constraints restrict a form of name that Go cannot
// compare, and a certificate below has such a name.
func checkOtherForms(ca, below *x509.Certificate) error {
	constraints, err := nameConstraintsOf(ca)
	if err != nil {
		return err
	}
	for _, subtree := range slices.Concat(constraints.Permitted, constraints.Excluded) {
		if isCompared(subtree.Base.Tag) {
			continue
		}
		names, err := GeneralNames(below)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(names, func(name asn1.RawValue) bool { return subtree.isForm(name.Tag) }) {
			return fmt.Errorf("its name constraints restrict names of the form %s, which cannot be enforced, and a certificate below has such a name; issue that one without it", otherForms[subtree.Base.Tag])
		}
	}
	return nil
}

// permitsEmail reports whether permitted rfc822Name constraints permit an address.
func permitsEmail(constraints []string, address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return len(constraints) == 0
	}
	return permitsHost(constraints, address[at+1:]) || slices.ContainsFunc(constraints, func(constraint string) bool {
		mailbox := strings.LastIndexByte(constraint, '@')
		return mailbox == at && constraint[:at] == address[:at] && strings.EqualFold(constraint[at:], address[at:])
	})
}

// permitsHost reports whether one of the constraints permits a host: one that is the
// host, one that begins with a period and ends the host, or an empty one. No constraints
// permit any host.
func permitsHost(constraints []string, host string) bool {
	host = strings.ToLower(host)
	return len(constraints) == 0 || slices.ContainsFunc(constraints, func(constraint string) bool {
		constraint = strings.ToLower(constraint)
		return constraint == "" || constraint == host || constraint[0] == '.' && strings.HasSuffix(host, constraint)
	})
}
