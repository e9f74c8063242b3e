package refusals

import (
	"cmp"
	"container/list"
	"sync"
	"time"
)

// The default limits of a [Memory].
const (
	DefaultKeep    = 10_000
	DefaultKeepFor = 24 * time.Hour
)

const (
	// maxOctets bounds the size of the records of a Memory.
	maxOctets = 32 << 20
	// maxRepeated is how many refusals with the same [Key] are remembered.
	maxRepeated = 100
)

// Limits say how much a [Memory] remembers.
type Limits struct {
	// Keep is how many refusals are remembered. Default: [DefaultKeep].
	Keep int
	// KeepFor is how long they are. Default: [DefaultKeepFor].
	KeepFor time.Duration
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

func (l Limits) withDefaults() Limits {
	l.Keep, l.KeepFor = cmp.Or(l.Keep, DefaultKeep), cmp.Or(l.KeepFor, DefaultKeepFor)
	if l.Now == nil {
		l.Now = time.Now
	}
	return l
}

// Memory remembers the latest refusals of one realm. Nothing is decided by it. The
// refusals of each [Class] make room for those of their own class before those of a
// smaller one, so that a flood of strangers leaves those of clients alone. Memory is safe
// for concurrent use.
type Memory struct {
	strangers strangers

	mu     sync.Mutex
	limits Limits
	number uint64 // of the last entry
	byID   map[string]*entry
	keys   map[Key]*repeated
	kept   [Classes]kept
}

// kept are the refusals of a class, the oldest first.
type kept struct {
	entries list.List
	octets  int
}

// entry is a remembered refusal.
type entry struct {
	record  Record
	number  uint64 // in the order of arrival
	key     Key
	octets  int
	inClass *list.Element
	inKey   *list.Element
}

// repeated are the remembered refusals with the same key, the oldest first.
type repeated struct {
	entries list.List
	times   int
	first   time.Time
}

// NewMemory returns an empty memory.
func NewMemory(limits Limits) *Memory {
	m := &Memory{limits: limits.withDefaults(), byID: make(map[string]*entry), keys: make(map[Key]*repeated)}
	m.strangers.byThumbprint = make(map[string]*list.Element)
	return m
}

// SetLimits changes the limits, and forgets what no longer fits into them.
func (m *Memory) SetLimits(limits Limits) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits = limits.withDefaults()
	m.shrink()
}

// Limits returns the limits.
func (m *Memory) Limits() Limits {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.limits
}

// Add remembers a refusal. It sets Times and First of the record.
func (m *Memory) Add(record Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := record.Key()
	same := m.keys[key]
	if same == nil {
		same = &repeated{first: record.At}
		m.keys[key] = same
	}
	same.times++
	record.Times, record.First = same.times, same.first
	m.number++
	added := &entry{record: record, number: m.number, key: key, octets: record.octets()}
	class := &m.kept[key.Class]
	class.octets += added.octets
	added.inClass, added.inKey = class.entries.PushBack(added), same.entries.PushBack(added)
	m.byID[record.ErrorID] = added
	if same.entries.Len() > maxRepeated {
		m.remove(same.entries.Front().Value.(*entry))
	}
	m.shrink()
	if record.isStranger() {
		m.strangers.add(&record, m.oldest())
	}
}

// oldest returns when the oldest refusals that are still remembered happened.
func (m *Memory) oldest() time.Time { return m.limits.Now().Add(-m.limits.KeepFor) }

// shrink forgets what is too old or too much.
func (m *Memory) shrink() {
	oldest := m.oldest()
	number, octets := 0, 0
	for i := range m.kept {
		class := &m.kept[i]
		for class.entries.Len() > 0 && class.oldest().record.At.Before(oldest) {
			m.remove(class.oldest())
		}
		number += class.entries.Len()
		octets += class.octets
	}
	for ; number > m.limits.Keep; number-- {
		octets -= m.removeFrom(func(k *kept) int { return k.entries.Len() })
	}
	for ; octets > maxOctets; number-- {
		octets -= m.removeFrom(func(k *kept) int { return k.octets })
	}
}

func (k *kept) oldest() *entry { return k.entries.Front().Value.(*entry) }

// removeFrom forgets the oldest refusal of the largest class, and returns its octets. Of
// classes of the same size, it is the one of whose callers the least is known.
func (m *Memory) removeFrom(size func(*kept) int) int {
	largest := &m.kept[0]
	for i := range m.kept {
		if size(&m.kept[i]) >= size(largest) {
			largest = &m.kept[i]
		}
	}
	removed := largest.oldest()
	m.remove(removed)
	return removed.octets
}

func (m *Memory) remove(e *entry) {
	class, same := &m.kept[e.key.Class], m.keys[e.key]
	class.entries.Remove(e.inClass)
	class.octets -= e.octets
	same.entries.Remove(e.inKey)
	if same.entries.Len() == 0 {
		delete(m.keys, e.key)
	}
	if m.byID[e.record.ErrorID] == e {
		delete(m.byID, e.record.ErrorID)
	}
}

// Find returns the refusal with this error id. The last one of a stranger who comes again
// and again is found although those of others have pushed it out.
func (m *Memory) Find(errorID string) (Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shrink()
	found := m.byID[errorID]
	if found == nil {
		return m.strangers.find(errorID, m.oldest())
	}
	return found.record, true
}

// List returns the refusals that a query selects, the newest first.
func (m *Memory) List(q Query) []Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shrink()
	var selected []Record
	for e := range m.newest {
		if q.Limit > 0 && len(selected) == q.Limit || e.record.At.Before(q.Since) {
			break
		}
		if q.selects(&e.record) {
			selected = append(selected, e.record)
		}
	}
	return selected
}

// newest yields the entries of all classes, the newest first.
func (m *Memory) newest(yield func(*entry) bool) {
	var next [Classes]*list.Element
	for i := range m.kept {
		next[i] = m.kept[i].entries.Back()
	}
	for {
		var newest **list.Element
		for i, e := range next {
			if e != nil && (newest == nil || e.Value.(*entry).number > (*newest).Value.(*entry).number) {
				newest = &next[i]
			}
		}
		if newest == nil || !yield((*newest).Value.(*entry)) {
			return
		}
		*newest = (*newest).Prev()
	}
}

func (q *Query) selects(r *Record) bool {
	return (q.ClientID == "" || q.ClientID == r.ClientID) && (q.Reason == "" || q.Reason == r.Reason) && !r.At.Before(q.Since)
}

// Len returns how many refusals are remembered.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shrink()
	number := 0
	for i := range m.kept {
		number += m.kept[i].entries.Len()
	}
	return number
}

// Strangers returns the strangers, the last refused first, at most limit unless it is 0,
// and how many more there are.
func (m *Memory) Strangers(limit int) (list []Stranger, more int) {
	return m.strangers.list(limit, m.oldestNow())
}

// CountStrangers returns how many strangers there are.
func (m *Memory) CountStrangers() int { return m.strangers.count(m.oldestNow()) }

// Forget removes the certificate with this thumbprint from the strangers, because it has
// been admitted.
func (m *Memory) Forget(thumbprint string) { m.strangers.forget(thumbprint) }

func (m *Memory) oldestNow() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.oldest()
}
