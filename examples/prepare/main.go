// Command prepare writes the certificates that examples/run needs to a folder and
// prints free ports and a thumbprint as shell assignments.
package main

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"net"
	"os"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: prepare <folder>")
		os.Exit(2)
	}
	if err := prepare(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func prepare(dir string) error {
	sensor, err := makeCertificates(dir)
	if err != nil {
		return err
	}
	thumbprint := sha256.Sum256(sensor.Cert.Raw)
	fmt.Printf("SENSOR_THUMBPRINT=%s\n", hex.EncodeToString(thumbprint[:]))
	return printPorts("ISSUER_PORT", "MIXED_PORT", "ALIAS_PORT", "API_PORT", "TOKEN_API_PORT")
}

// makeCertificates writes the certificates of the server, its clients, an API, and
// a stranger with the subject of the first client. It returns the certificate of
// the client that is registered by its thumbprint.
func makeCertificates(dir string) (*testpki.Leaf, error) {
	serverCA, err := testpki.NewCA(testpki.CommonName("Server CA"))
	if err != nil {
		return nil, err
	}
	server, err := serverCA.Issue(testpki.CommonName("localhost"), testpki.DNSNames("localhost"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	if err != nil {
		return nil, err
	}
	root, err := testpki.NewCA(testpki.CommonName("Clients Root CA"))
	if err != nil {
		return nil, err
	}
	issuing, err := root.Intermediate(testpki.CommonName("Clients Issuing CA"))
	if err != nil {
		return nil, err
	}
	billingName := testpki.Subject(pkix.Name{CommonName: "billing", OrganizationalUnit: []string{"production"}, Organization: []string{"Partner"}})
	billing, err := issuing.Issue(billingName)
	if err != nil {
		return nil, err
	}
	api, err := testpki.SelfSigned(testpki.CommonName("api"))
	if err != nil {
		return nil, err
	}
	sensor, err := testpki.SelfSigned(testpki.CommonName("sensor 7"), testpki.WithKeyType(testpki.RSA2048))
	if err != nil {
		return nil, err
	}
	stranger, err := testpki.SelfSigned(billingName)
	if err != nil {
		return nil, err
	}

	for name, ca := range map[string]*testpki.CA{"server-ca": serverCA, "clients-ca": root} {
		if _, err := ca.WriteFile(dir, name); err != nil {
			return nil, err
		}
	}
	for name, leaf := range map[string]*testpki.Leaf{"server": server, "billing": billing, "sensor-7": sensor, "api": api, "stranger": stranger} {
		if _, _, err := leaf.WriteFiles(dir, name); err != nil {
			return nil, err
		}
	}
	return sensor, nil
}

// printPorts prints a free port for each name. It keeps listening on all of them
// until the last is found, so that they differ.
func printPorts(names ...string) error {
	for _, name := range names {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		fmt.Printf("%s=%d\n", name, listener.Addr().(*net.TCPAddr).Port)
	}
	return nil
}
