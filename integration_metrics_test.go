package mtlsauth

import (
	"io"
	"net/http"
	"testing"
)

// metrics returns what Caddy's admin endpoint tells a Prometheus server.
func (r *rig) metrics(t *testing.T) string {
	t.Helper()
	response, err := http.Get("http://127.0.0.1:" + r.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %v", response.Status, err)
	}
	return string(body)
}
