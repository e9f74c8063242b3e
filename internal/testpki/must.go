package testpki

import "crypto"

// TB is the part of testing.TB that the Must functions need, so that this
// package does not link the testing package into a command.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// MustCA is like [NewCA] but ends the test on failure.
func MustCA(tb TB, opts ...Option) *CA {
	tb.Helper()
	ca, err := NewCA(opts...)
	return must(tb, ca, err)
}

// MustIntermediate is like [CA.Intermediate] but ends the test on failure.
func MustIntermediate(tb TB, ca *CA, opts ...Option) *CA {
	tb.Helper()
	sub, err := ca.Intermediate(opts...)
	return must(tb, sub, err)
}

// MustIssue is like [CA.Issue] but ends the test on failure.
func MustIssue(tb TB, ca *CA, opts ...Option) *Leaf {
	tb.Helper()
	leaf, err := ca.Issue(opts...)
	return must(tb, leaf, err)
}

// MustSelfSigned is like [SelfSigned] but ends the test on failure.
func MustSelfSigned(tb TB, opts ...Option) *Leaf {
	tb.Helper()
	leaf, err := SelfSigned(opts...)
	return must(tb, leaf, err)
}

// MustKey is like [NewKey] but ends the test on failure.
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
