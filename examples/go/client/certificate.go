package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

// identity is a certificate and what goes with it. A token is refused on a connection with another certificate, and an
// open connection keeps the certificate it was made with. So a new one comes with new connections and a new token.
type identity struct {
	settings    Settings
	connections *http.Transport
	tokens      tokens
}

// load returns the identity of the files.
func load(settings Settings) (*identity, error) {
	certificate, err := tls.LoadX509KeyPair(settings.Certificate, settings.Key) // fails if they do not belong together
	if err != nil {
		return nil, err
	}
	connections := http.DefaultTransport.(*http.Transport).Clone()
	connections.ResponseHeaderTimeout = timeout
	connections.TLSClientConfig = &tls.Config{
		// Certificates would send nothing if the server names CAs and none of them issued the certificate.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
	}
	return &identity{settings: settings, connections: connections}, nil
}

// watch replaces the identity when the files have changed, as soon as the new one has a token.
func (t *Transport) watch(settings Settings, seen string) {
	for {
		time.Sleep(time.Second)
		files := modified(settings)
		if files == seen {
			continue
		}
		next, err := load(settings)
		if err == nil {
			_, err = next.usableToken(context.Background())
		}
		if err != nil { // perhaps one of the files is still the old one, or the issuer does not know the certificate yet
			log.Printf("certificate not replaced: %v; going on with the one in use", err)
			time.Sleep(5 * time.Second)
			continue
		}
		log.Print("certificate replaced")
		seen = files
		t.identity.Swap(next).connections.CloseIdleConnections() // the others close after their last answer
	}
}

// modified returns a text that changes when one of the files does.
func modified(settings Settings) (text string) {
	for _, file := range []string{settings.Certificate, settings.Key} {
		if info, err := os.Stat(file); err == nil {
			text += fmt.Sprintln(info.Size(), info.ModTime())
		}
	}
	return text
}
