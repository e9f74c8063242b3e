package docs_test

import (
	"cmp"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

// TestNormalAgesAreDocumented checks that the table of sources has every kind of source
// with its normal age and the setting that changes it, and no other.
func TestNormalAgesAreDocumented(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `([^`]+)`( \\([a-zA-Z ]+\\))? \\| [^|]*\\| ((?:an?|[0-9]+) [a-z]+) \\| (?:`([^`]+)`[^|]*)?\\|$")
	var code, documented []string
	for _, match := range row.FindAllStringSubmatch(page(t, "metrics.md"), -1) {
		documented = append(documented, match[1]+match[2]+": "+match[3]+" "+match[4])
	}
	words := map[time.Duration]string{time.Second: "a second", time.Minute: "a minute", time.Hour: "an hour"}
	for _, kind := range status.Kinds {
		age := cmp.Or(words[kind.Normal], fmt.Sprintf("%.0f seconds", kind.Normal.Seconds()))
		code = append(code, kind.Label+": "+age+" "+kind.Setting)
	}
	same(t, "normal ages of sources", code, documented)
}
