package main

import (
	"context"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// tokens are the tokens of one certificate.
type tokens struct {
	endpoint atomic.Pointer[string] // nil until the issuer's metadata has been read
	renewal  singleflight.Group

	mu              sync.Mutex // guards what follows
	current         string
	renewAt, endsAt time.Time
}

// held returns the token in use, whether it can be used and whether it is too early to renew it.
func (t *tokens) held() (token string, usable, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	usable = now.Before(t.endsAt)
	return t.current, usable, usable && now.Before(t.renewAt)
}

// usableToken returns a token. If it is time to renew it, callers go on with the old one while it lasts, or wait for one
// request that is made for all of them.
func (id *identity) usableToken(ctx context.Context) (string, error) {
	token, usable, fresh := id.tokens.held()
	if fresh {
		return token, nil
	}
	renewed := id.tokens.renewal.DoChan("", func() (any, error) { return id.renew(context.WithoutCancel(ctx)) })
	if usable {
		return token, nil
	}
	select {
	case result := <-renewed:
		token, _ = result.Val.(string)
		return token, result.Err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (id *identity) renew(ctx context.Context) (string, error) {
	t := &id.tokens
	if token, _, fresh := t.held(); fresh {
		return token, nil // it has just been renewed
	}
	began := time.Now()
	token, life, err := id.requestToken(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		if time.Now().Before(t.endsAt) {
			log.Printf("token not renewed: %v; using the old one until it expires", err)
			t.renewAt = time.Now().Add(5 * time.Second)
		}
		return "", err
	}
	t.current, t.renewAt, t.endsAt = token, began.Add(life*7/10), began.Add(life-time.Second)
	return token, nil
}

// discard ends the use of a token that an API has refused.
func (t *tokens) discard(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == token && !t.endsAt.IsZero() { // and by nobody before
		t.endsAt = time.Time{}
		t.renewal.Forget("") // the answer to a request that is under way may be as bad
	}
}
