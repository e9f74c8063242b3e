package mtlsauth

import (
	"fmt"
	"sync"
)

// usedByForwardToken is the one use of an audience that several directives may
// share.
const usedByForwardToken = "forward_token"

// audiences are what the directives of a configuration have said tokens are
// for. A token for the API behind must not pass for an access token, nor the
// other way round, so no audience has two uses.
type audiences struct {
	mu   sync.Mutex
	uses map[string]string
}

// reserve notes the use of an audience, "forward_token" or the directive that
// takes access tokens for it.
func (a *audiences) reserve(audience, use string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	other, used := a.uses[audience]
	if used && other != use && (other == usedByForwardToken || use == usedByForwardToken) {
		return fmt.Errorf("audience '%s' is that of %s and of %s, so tokens of one could be mistaken for the other's; choose another audience", audience, other, use)
	}
	if a.uses == nil {
		a.uses = make(map[string]string)
	}
	if !used {
		a.uses[audience] = use
	}
	return nil
}
