package refusals

import "time"

const (
	// foldWindow is how long refusals are counted before the counts are told.
	foldWindow = time.Minute
	// maxLines is how many callers of one [Group] and [Class] have a line of their own in a
	// window for their first refusal, and how many for their repetitions.
	maxLines = 100
	// maxFolded is how many callers of a class a Fold knows.
	maxFolded = 4096
)

// Group is what refusals have in common that are told as one if too many callers have them.
type Group struct{ Realm, Directive, Message, Reason string }

// Counted are refusals that are told as one.
type Counted struct {
	Group
	// Last is the last one.
	Last Brief
	// Times is how many they are.
	Times int
	// Several is set if they are those of several callers.
	Several bool
}

// Brief says which refusal a [Counted] ends with.
type Brief struct {
	ErrorID, ClientID, Thumbprint, RemoteIP string
	ReportOnly, Failed                      bool
	at                                      time.Time
}

func (r *Record) brief() Brief {
	brief := Brief{ErrorID: r.ErrorID, RemoteIP: r.RemoteIP, ReportOnly: r.ReportOnly, Failed: r.Failed, at: r.At}
	if !r.Claimed {
		brief.ClientID = r.ClientID
	}
	if r.Certificate != nil {
		brief.Thumbprint = r.Certificate.Thumbprint
	}
	return brief
}

// Fold decides which refusals have a line in the log and counts the others, so that
// neither one caller who repeats a request nor many with one request each can fill the
// log. In a minute, each [Class] of callers of a [Group] has at most 100 lines for first
// refusals and 100 for repetitions, and the Group one for all others: strangers, however
// many, do not take the lines of clients. Each refusal has a line or is counted, once. A
// Fold is not safe for concurrent use.
type Fold struct {
	// began is when the counts began that are told next
	began  time.Time
	groups map[Group]*foldedGroup
	known  [Classes]int // callers
}

type foldedGroup struct {
	count
	lines   [Classes]int // for first refusals
	callers map[foldedCaller]*count
}

type foldedCaller struct {
	class Class
	name  string
}

// count is what has not been told yet.
type count struct {
	times int
	last  Brief
}

func (c *count) add(r *Record) {
	c.times++
	c.last = r.brief()
}

// NewFold returns a Fold that has counted nothing.
func NewFold() *Fold { return &Fold{groups: make(map[Group]*foldedGroup)} }

// Add reports whether a refusal is to have a line of its own. If not, it is counted. The
// counts that are [Fold.Due] should have been told before.
func (f *Fold) Add(r *Record) bool {
	if len(f.groups) == 0 {
		f.began = r.At
	}
	key := r.Key()
	name := Group{key.Realm, key.Directive, key.Message, key.Reason}
	group := f.groups[name]
	if group == nil {
		group = &foldedGroup{callers: make(map[foldedCaller]*count)}
		f.groups[name] = group
	}
	caller := foldedCaller{key.Class, key.Caller}
	if known := group.callers[caller]; known != nil {
		known.add(r)
		return false
	}
	if group.lines[key.Class] == maxLines || f.known[key.Class] == maxFolded {
		group.add(r)
		return false
	}
	group.lines[key.Class]++
	group.callers[caller] = &count{last: r.brief()}
	f.known[key.Class]++
	return true
}

// Due returns the counts that are to be told by now. A caller who was silent for a minute
// is forgotten.
func (f *Fold) Due(now time.Time) []Counted {
	if len(f.groups) == 0 || now.Sub(f.began) < foldWindow {
		return nil
	}
	told := f.Pending()
	for name, group := range f.groups {
		group.lines = [Classes]int{}
		for caller, known := range group.callers {
			if now.Sub(known.last.at) >= foldWindow {
				delete(group.callers, caller)
				f.known[caller.class]--
			}
		}
		if len(group.callers) == 0 {
			delete(f.groups, name)
		}
	}
	f.began = now
	return told
}

// Pending returns all counts that have not been told.
func (f *Fold) Pending() (told []Counted) {
	for name, group := range f.groups {
		var lines [Classes]int
		for caller, known := range group.callers {
			switch {
			case known.times == 0:
				continue
			case lines[caller.class] < maxLines:
				lines[caller.class]++
				told = append(told, Counted{Group: name, Last: known.last, Times: known.times})
			default:
				group.times += known.times
				group.last = known.last
			}
			known.times = 0
		}
		if group.times > 0 {
			told = append(told, Counted{Group: name, Last: group.last, Times: group.times, Several: true})
			group.times = 0
		}
	}
	return told
}
