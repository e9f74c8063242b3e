package source

import (
	"net"
	"strings"
)

// DialAddress returns where to connect for an address, a host and a port. Names below
// localhost are this machine, as RFC 6761 §6.3 says, and as curl and browsers have it;
// many resolvers do not know them.
func DialAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !strings.HasSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), ".localhost") {
		return address
	}
	return net.JoinHostPort("localhost", port)
}
