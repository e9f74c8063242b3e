package testpki

import "crypto"

// TB is the part of testing.TB that the Must functions need, so that this
// package does not link the testing package into a command.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// MustCA is [NewCA] for tests.
func MustCA(tb TB, opts ...Option) *CA {
	tb.Helper()
	ca, err := NewCA(opts...)
	return must(tb, ca, err)
}

// MustIntermediate is [CA.Intermediate] for tests.
func MustIntermediate(tb TB, ca *CA, opts ...Option) *CA {
	tb.Helper()
	sub, err := ca.Intermediate(opts...)
	return must(tb, sub, err)
}

// MustIssue is [CA.Issue] for tests.
func MustIssue(tb TB, ca *CA, opts ...Option) *Leaf {
	tb.Helper()
	leaf, err := ca.Issue(opts...)
	return must(tb, leaf, err)
}

// MustSelfSigned is [SelfSigned] for tests.
func MustSelfSigned(tb TB, opts ...Option) *Leaf {
	tb.Helper()
	leaf, err := SelfSigned(opts...)
	return must(tb, leaf, err)
}

// MustKey is [NewKey] for tests.
func MustKey(tb TB, kind KeyType) crypto.Signer {
	tb.Helper()
	key, err := NewKey(kind)
	return must(tb, key, err)
}

func must[T any](tb TB, value T, err error) T {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return value
}
