package refusals

import "hash/maphash"

const (
	// latelyBits is the size of a generation of [lately], 2 MiB, and latelyMost how many
	// certificates it is for. With 16 bits each, it is wrong about one in a thousand.
	latelyBits   = 1 << 24
	latelyMost   = latelyBits / 16
	latelyHashes = 6
)

// lately remembers, by a few bits of each, which certificates have made room for others
// lately: the last million, and up to another million. It takes no memory before there is
// one. Who is not in it has not come; who is, almost certainly has.
type lately struct {
	seed             maphash.Seed
	current, earlier []uint64
	noted            int // in current
}

func (l *lately) note(thumbprint string) {
	if l.noted == latelyMost {
		l.current, l.earlier, l.noted = nil, l.current, 0
	}
	if l.current == nil {
		l.current = make([]uint64, latelyBits/64)
		if l.earlier == nil {
			l.seed = maphash.MakeSeed() // so that nobody can choose the bits
		}
	}
	l.noted++
	for bit := range l.bitsOf(thumbprint) {
		l.current[bit/64] |= 1 << (bit % 64)
	}
}

func (l *lately) has(thumbprint string) bool {
	return l.isIn(l.current, thumbprint) || l.isIn(l.earlier, thumbprint)
}

func (l *lately) isIn(generation []uint64, thumbprint string) bool {
	if generation == nil {
		return false
	}
	for bit := range l.bitsOf(thumbprint) {
		if generation[bit/64]&(1<<(bit%64)) == 0 {
			return false
		}
	}
	return true
}

// bitsOf yields the bits that stand for a certificate.
func (l *lately) bitsOf(thumbprint string) func(yield func(uint64) bool) {
	hash := maphash.String(l.seed, thumbprint)
	return func(yield func(uint64) bool) {
		for i := range uint64(latelyHashes) {
			if !yield((hash + i*(hash>>32|1)) % latelyBits) {
				return
			}
		}
	}
}
