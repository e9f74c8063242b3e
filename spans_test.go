package mtlsauth

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestNoSpanCostsNothing checks that a request that is not traced allocates nothing more.
func TestNoSpanCostsNothing(t *testing.T) {
	r, realm := httptest.NewRequest(http.MethodGet, "/", nil), &Realm{name: "default"}
	if n := testing.AllocsPerRun(100, func() {
		if startSpan(r, directiveAuth, realm) != nil {
			t.Error("there is a span")
		}
		noteSpan(r, "ok", "a", "")
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}
