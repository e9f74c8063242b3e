package clients

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Traits are what many clients have in common. Clients with the same share one, which
// never changes.
type Traits struct {
	Scopes           []string
	DefaultScopes    []string
	Resources        []string // nil for all that have one of its scopes
	Introspect       []string
	TokenLifetime    time.Duration // zero for the issuer's
	RequireChain     bool
	SharedCredential bool
	IssuedBy         [][sha256.Size]byte

	scope      string
	claimNames []string
}

// Scope returns the client's scopes, separated by spaces.
func (t *Traits) Scope() string { return t.scope }

// HasScope reports whether the client is registered for scope.
func (t *Traits) HasScope(scope string) bool { return slices.Contains(t.Scopes, scope) }

// ClaimNames returns the names of the client's claims, sorted.
func (t *Traits) ClaimNames() []string { return t.claimNames }

// traitsTable has the traits that clients have now.
type traitsTable struct {
	mu    sync.Mutex
	byKey map[string]weak.Pointer[Traits]
}

var sharedTraits = traitsTable{byKey: make(map[string]weak.Pointer[Traits])}

// of returns the traits of a record with these claims.
func (t *traitsTable) of(r *Record, claims []claim) (*Traits, error) {
	names := make([]string, len(claims))
	for i, c := range claims {
		names[i] = c.name
	}
	slices.Sort(names)
	var buf [256]byte
	key := appendTraitsKey(buf[:0], r, names)
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.byKey[string(key)].Value(); known != nil {
		return known, nil
	}
	made, err := makeTraits(r, names)
	if err != nil {
		return nil, err
	}
	own := string(key)
	t.byKey[own] = weak.Make(made)
	runtime.AddCleanup(made, t.forget, own)
	return made, nil
}

// forget forgets traits that no client has any more.
func (t *traitsTable) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[key].Value() == nil {
		delete(t.byKey, key)
	}
}

// appendTraitsKey appends what is the same for two records if and only if their traits
// are.
func appendTraitsKey(key []byte, r *Record, claimNames []string) []byte {
	for _, list := range [][]string{{r.Scope, r.DefaultScope}, r.Resources, r.Introspect, r.IssuedBy, claimNames} {
		key = binary.AppendUvarint(key, uint64(len(list)))
		for _, text := range list {
			key = binary.AppendUvarint(key, uint64(len(text)))
			key = append(key, text...)
		}
	}
	key = binary.AppendVarint(key, int64(r.TokenLifetime))
	for _, set := range []bool{r.RequireChain, r.SharedCredential} {
		if set {
			key = append(key, 1)
			continue
		}
		key = append(key, 0)
	}
	return key
}

// makeTraits makes the traits of a record. They keep nothing of its text, which they
// outlive.
func makeTraits(r *Record, claimNames []string) (*Traits, error) {
	t := &Traits{TokenLifetime: time.Duration(r.TokenLifetime), RequireChain: r.RequireChain, SharedCredential: r.SharedCredential}
	for _, name := range claimNames {
		t.claimNames = append(t.claimNames, strings.Clone(name))
	}
	for _, step := range []func(*Record) error{t.setScopes, t.setResources, t.setIssuedBy} {
		if err := step(r); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Traits) setScopes(r *Record) error {
	scopes, defaults := newWordSet(&t.Scopes), newWordSet(&t.DefaultScopes)
	for scope := range strings.FieldsSeq(r.Scope) {
		if err := syntax.CheckDeclaredScope(scope); err != nil {
			return err
		}
		scopes.add(scope)
	}
	for scope := range strings.FieldsSeq(r.DefaultScope) {
		if !scopes.has(scope) {
			return fmt.Errorf("default scope '%s' is not one of the client's scopes; add it to them", scope)
		}
		defaults.add(scope)
	}
	t.scope = strings.Join(t.Scopes, " ")
	return nil
}

func (t *Traits) setResources(r *Record) error {
	for _, list := range []struct {
		word   string
		values []string
		into   *[]string
	}{{"resources", r.Resources, &t.Resources}, {"introspect", r.Introspect, &t.Introspect}} {
		set := newWordSet(list.into)
		for _, resource := range list.values {
			if resource == "" {
				return fmt.Errorf("%s: a resource is empty; remove it or set the variable it comes from", list.word)
			}
			set.add(resource)
		}
	}
	return nil
}

// wordSet collects different words in a list. A record has room for so many that they
// must not be compared with each other.
type wordSet struct {
	into  *[]string
	known map[string]struct{}
}

func newWordSet(into *[]string) wordSet { return wordSet{into, make(map[string]struct{})} }

func (s wordSet) has(word string) bool {
	_, has := s.known[word]
	return has
}

// add adds a copy of a word, unless the set has it.
func (s wordSet) add(word string) {
	if !s.has(word) {
		s.known[word] = struct{}{}
		*s.into = append(*s.into, strings.Clone(word))
	}
}

func (t *Traits) setIssuedBy(r *Record) error {
	for _, text := range r.IssuedBy {
		sum, err := validators.ParseSHA256(text)
		if err != nil {
			return fmt.Errorf("issued_by '%s': %w", text, err)
		}
		t.IssuedBy = append(t.IssuedBy, sum)
	}
	return nil
}
