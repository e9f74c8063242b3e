// Command prepare writes the certificates that test/interop/run needs to a folder and
// prints free ports and a thumbprint as shell assignments.
package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"

	"github.com/caddymtls/caddy-mtls-auth/internal/freeport"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func main() {
	if len(os.Args) != 2 {
		fail("usage: prepare <folder>")
	}
	sensor := makeCertificates(os.Args[1])
	fmt.Printf("SENSOR_THUMBPRINT=%s\n", testpki.HashOf(sensor.Cert.Raw))
	for _, name := range []string{"ISSUER_PORT", "MIXED_PORT", "ALIAS_PORT", "API_PORT", "TOKEN_API_PORT"} {
		port, _, err := freeport.Reserve()
		if err != nil {
			fail(err)
		}
		fmt.Printf("%s=%s\n", name, port)
	}
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}

// must returns the value, or ends the program with the error.
func must[T any](value T, err error) T {
	if err != nil {
		fail(err)
	}
	return value
}

// makeCertificates writes the certificates of the server, its clients, an API, and
// a stranger with the subject of the first client. It returns the certificate of
// the client that is registered by its thumbprint.
func makeCertificates(dir string) *testpki.Leaf {
	serverCA := must(testpki.NewCA(testpki.CommonName("Server CA")))
	root := must(testpki.NewCA(testpki.CommonName("Clients Root CA")))
	issuing := must(root.Intermediate(testpki.CommonName("Clients Issuing CA")))
	for name, ca := range map[string]*testpki.CA{"server-ca": serverCA, "clients-ca": root} {
		must(ca.WriteFile(dir, name))
	}
	billing := testpki.Subject(pkix.Name{CommonName: "billing", OrganizationalUnit: []string{"production"}, Organization: []string{"Partner"}})
	sensor := must(testpki.SelfSigned(testpki.CommonName("sensor 7"), testpki.WithKeyType(testpki.RSA2048)))
	for name, leaf := range map[string]*testpki.Leaf{
		"server":   must(serverCA.Issue(testpki.CommonName("localhost"), testpki.DNSNames("localhost"), testpki.EKU(x509.ExtKeyUsageServerAuth))),
		"billing":  must(issuing.Issue(billing)),
		"sensor-7": sensor,
		"api":      must(testpki.SelfSigned(testpki.CommonName("api"))),
		"stranger": must(testpki.SelfSigned(billing)),
	} {
		if _, _, err := leaf.WriteFiles(dir, name); err != nil {
			fail(err)
		}
	}
	return sensor
}
