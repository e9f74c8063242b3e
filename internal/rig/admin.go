package rig

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Series parses the series of ours that are about one realm: name, and what
// labels there are beside the realm, to value.
func Series(t *testing.T, text, realm string) map[string]float64 {
	t.Helper()
	found := make(map[string]float64)
	line := regexp.MustCompile(`(?m)^caddy_mtls_(\w+)\{([^}]*)\} (\S+)$`)
	for _, match := range line.FindAllStringSubmatch(text, -1) {
		name, labels := match[1], match[2]
		if !strings.Contains(labels, `realm="`+realm+`"`) || strings.HasSuffix(name, "_bucket") {
			continue
		}
		labels = strings.Trim(strings.Replace(labels, `realm="`+realm+`"`, "", 1), ",")
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

func CheckGauges(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if is, ok := got[name]; !ok || is != value {
			t.Errorf("%s is %v (%v), want %v", name, is, ok, value)
		}
	}
}
