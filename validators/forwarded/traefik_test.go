package forwarded

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func TestForwardTraefik(t *testing.T) {
	chain := chainOf(t, 3)
	values, _ := forward(formatTraefik, chain...)
	mustForward(t, formatTraefik, values, nil, chain...)
	// older releases
	escaped := url.QueryEscape(values[0])
	mustForward(t, formatTraefik, []string{escaped}, nil, chain...)
	mustForward(t, formatTraefik, []string{strings.ReplaceAll(escaped, "%2C", ",")}, nil, chain...)
	// the order is the client's, and the first certificate counts
	values, _ = forward(formatTraefik, chain[1], chain[0])
	mustForward(t, formatTraefik, values, nil, chain[1], chain[0])

	one := toBase64(chain[0])
	for _, test := range []struct{ value, why string }{
		{",", "certificate 1: invalid certificate"},
		{one + ",", "certificate 2: invalid certificate"},
		{"," + one, "certificate 1: invalid certificate"},
		{one + ",," + one, "certificate 2: invalid certificate"},
		{one + ", " + one, "certificate 2: the certificate is not base64"}, // as a proxy joins two headers
		{one + ";" + one, "certificate 1: the certificate is not base64"},
		{one + "%0A", "line breaks"},
		{one + "%", "not URL-encoded"},
		{url.QueryEscape(escaped), "not base64"},
		{`"` + one + `"`, "not base64"},
		{":" + one + ":", "not base64"},
		{strings.Repeat(",", 50_000), "the value has 50001 certificates; at most 9 are allowed"},
	} {
		mustNotForward(t, formatTraefik, []string{test.value}, nil, test.why)
	}
	most := append(chain[:1:1], slices.Repeat(chain[1:2], validators.MaxIntermediates)...)
	values, _ = forward(formatTraefik, most...)
	mustForward(t, formatTraefik, values, nil, most...)
	mustNotForward(t, formatTraefik, []string{values[0] + "," + one}, nil, "the value has 10 certificates")
}
