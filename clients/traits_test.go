package clients

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestManyWordsInARecord: the time that a record takes grows with its size, and not with
// the square of how many scopes and resources it names. Others wait for it.
func TestManyWordsInARecord(t *testing.T) {
	words := make([]string, 9000)
	for i := range words {
		words[i] = strconv.FormatInt(int64(i), 36)
	}
	text := strings.Join(words, " ")
	most := 20 * time.Millisecond
	if testtool.RaceEnabled {
		most *= 10
	}
	for name, r := range map[string]*Record{
		"scope": {Scope: text, DefaultScope: text}, "resources": {Resources: words}, "introspect": {Introspect: words},
	} {
		best := time.Hour
		for try := 0; try < 50 && best > most; try++ { // the machine may be busy
			began := time.Now()
			made, err := makeTraits(r, nil)
			if err != nil || len(made.Scopes)+len(made.Resources)+len(made.Introspect) != len(words) {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		if best > most {
			t.Errorf("%s: %s", name, best)
		}
	}
}
