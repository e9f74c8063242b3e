package rig

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Series parses the plugin's series of one realm. A key is the name of a series
// with its labels other than the realm.
func Series(t *testing.T, text, realm string) map[string]float64 {
	t.Helper()
	found := make(map[string]float64)
	line := regexp.MustCompile(`(?m)^caddy_mtls_(\w+)\{([^}]*)\} (\S+)$`)
	for _, match := range line.FindAllStringSubmatch(text, -1) {
		name, labels := match[1], match[2]
		if !strings.Contains(labels, `realm="`+realm+`"`) || strings.HasSuffix(name, "_bucket") {
			continue
		}
		labels = strings.Trim(strings.Replace(strings.Replace(labels, `realm="`+realm+`"`, "", 1), ",,", ",", 1), ",")
		if labels != "" {
			name += "{" + labels + "}"
		}
		value, err := strconv.ParseFloat(match[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		found[name] = value
	}
	return found
}

// CheckGauges fails the test unless every wanted series has its value.
func CheckGauges(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if is, ok := got[name]; !ok || is != value {
			t.Errorf("%s is %v (%v), want %v", name, is, ok, value)
		}
	}
}

// AdminClient opens a connection for each request to the admin endpoint, because Caddy
// closes those to the previous endpoint some time after it has loaded a configuration.
var AdminClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// awaitAdmin waits until only one admin endpoint accepts connections. When the previous one
// stops listening, the operating system resets the connections that it has not accepted.
// Caddy sometimes leaves one open, so it does not wait for long.
func (r *Rig) awaitAdmin() {
	for end := time.Now().Add(3 * time.Second); r.AdminOn && time.Now().Before(end); time.Sleep(time.Millisecond) {
		if caddy.ListenerUsage("tcp", "127.0.0.1:"+r.Admin) <= 1 {
			return
		}
	}
}

// Ask sends a request to the admin endpoint. It needs AdminOn.
func Ask(r *Rig, t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+r.Admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := AdminClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// Metrics scrapes the admin endpoint. It needs AdminOn.
func Metrics(r *Rig, t *testing.T) string {
	t.Helper()
	response, err := AdminClient.Get("http://127.0.0.1:" + r.Admin + "/metrics")
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
