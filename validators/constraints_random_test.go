package validators

import (
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestConstraintsAgainstPlainReading_P1 compares what is admitted under many random
// name constraints, in which Go searches, with a plain reading of RFC 5280 §4.2.1.10 that
// tries one after the other.
func TestConstraintsAgainstPlainReading_P1(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	oneOf := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	domain := func(most int) string {
		labels := []string{oneOf("a", "b", "a-b", "A", "ab", "com", "x")}
		for range random.IntN(most) {
			labels = append(labels, oneOf("a", "b", "a-b", "com"))
		}
		return strings.Join(labels, ".")
	}
	address := func() net.IP {
		return net.IP{10, byte(random.IntN(3)), byte(random.IntN(2)), byte(random.IntN(3))}
	}
	constraint := func(tag int) string {
		if tag == iPAddress {
			mask := net.CIDRMask(random.IntN(33), 32)
			return string(address().Mask(mask)) + string(mask)
		}
		if random.IntN(40) == 0 {
			return ""
		}
		return oneOf("", "", ".") + domain(3)
	}
	constraints := func(tag int) (list []string) {
		for range random.IntN(5) {
			list = append(list, constraint(tag))
		}
		return list
	}
	caKey, leafKey := testpki.MustKey(t, testpki.P256), testpki.MustKey(t, testpki.P256)
	admitted := 0
	const chains = 2000
	for range chains {
		tag := []int{dNSName, rfc822Name, uniformResourceIdentifier, iPAddress}[random.IntN(4)]
		permitted, excluded := constraints(tag), constraints(tag)
		if len(permitted)+len(excluded) == 0 {
			continue
		}
		host, ip := domain(4), address()
		name := map[int]testpki.Option{
			dNSName: testpki.DNSNames(host), rfc822Name: testpki.Emails("joe@" + host),
			uniformResourceIdentifier: testpki.URIs("spiffe://" + host + "/x"), iPAddress: testpki.IPs(ip),
		}[tag]
		matches := func(constraint string) bool {
			if tag == iPAddress {
				network := net.IPNet{IP: net.IP(constraint[:4]), Mask: net.IPMask(constraint[4:])}
				return network.Contains(ip)
			}
			constraint, host := strings.ToLower(constraint), strings.ToLower(host)
			return constraint == "" || constraint == host || strings.HasPrefix(constraint, ".") && strings.HasSuffix(host, constraint) ||
				tag == dNSName && strings.HasSuffix(host, "."+constraint)
		}
		ca := testpki.MustCA(t, testpki.Key(caKey), constraintsOf(t, trees(tag, permitted...), trees(tag, excluded...)))
		leaf := testpki.MustIssue(t, ca, testpki.Key(leafKey), name)
		_, err := NewTrustPool(ca.Pool(), ca.Cert).Verify(leaf.Cert, nil, now)
		allowed := (len(permitted) == 0 || slices.ContainsFunc(permitted, matches)) && !slices.ContainsFunc(excluded, matches)
		// An excluded e-mail or URI host excludes the hosts below it too.
		stricter := tag == rfc822Name || tag == uniformResourceIdentifier
		if err == nil && !allowed || err != nil && allowed && !stricter {
			t.Errorf("form %d, permitted %q, excluded %q, host %q, address %s: %v", tag, permitted, excluded, host, ip, err)
		}
		if err == nil {
			admitted++
		}
	}
	if admitted < chains/10 {
		t.Errorf("only %d are admitted", admitted)
	}
}
