package command

import (
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// TestSourcesInTheStatus checks that the table of sources says how old each is and how old
// is normal, when a CRL expires, and from when a copy is.
func TestSourcesInTheStatus(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	var out strings.Builder
	err := printSources(&out, []status.Source{
		{Name: "crl:/etc/ca.crl", LastSuccess: at, Normal: 60, NextUpdate: at.Add(time.Hour)},
		{Name: "clients:http", Late: true, Error: "no\x1banswer", Copy: "/var/clients.json", CopyTime: at.Add(-time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(`
SOURCE           STATE    LAST_READ          NORMAL_AGE  NEXT_UPDATE        COPY               COPY_TIME          ERROR
crl:/etc/ca.crl  ok       2030-01-02T03:04Z        1m0s  2030-01-02T04:04Z                     -
clients:http     failing  -                           -  -                  /var/clients.json  2030-01-02T02:04Z  no\x1banswer
`, "\n")
	var got strings.Builder
	for line := range strings.Lines(out.String()) {
		got.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
