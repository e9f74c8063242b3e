package problem

import "strings"

// maxRanges bounds how many media ranges of a request are looked at.
const maxRanges = 64

// The media ranges that a body fits, the most specific one first. A caller who asks for
// JSON is content with problem details, although RFC 9110 does not say so.
var (
	textRanges = []string{"text/plain", "text/*", "*/*"}
	jsonRanges = []string{"application/problem+json", "application/json", "application/*", "*/*"}
)

// prefersJSON reports whether the caller prefers problem details to plain text (RFC
// 9110 §12.5.1).
func prefersJSON(accept []string) bool {
	text, json := newQuality(textRanges), newQuality(jsonRanges)
	ranges := 0
	for _, line := range accept {
		for element := range strings.SplitSeq(line, ",") {
			if ranges++; ranges > maxRanges {
				return json.thousandths > text.thousandths
			}
			name, parameters, _ := strings.Cut(element, ";")
			weight, ok := weightOf(parameters)
			if !ok {
				continue
			}
			name = strings.ToLower(strings.TrimSpace(name))
			text.add(name, weight)
			json.add(name, weight)
		}
	}
	return json.thousandths > text.thousandths
}

// quality is how much a caller wants a body: the weight of the most specific media
// range.
type quality struct {
	ranges      []string
	matched     int // index in ranges
	thousandths int
}

func newQuality(ranges []string) *quality { return &quality{ranges: ranges, matched: len(ranges)} }

func (q *quality) add(name string, weight int) {
	for i, known := range q.ranges[:min(q.matched+1, len(q.ranges))] {
		if name != known {
			continue
		}
		if i < q.matched {
			q.matched, q.thousandths = i, 0
		}
		q.thousandths = max(q.thousandths, weight)
	}
}

// weightOf returns the weight among the parameters of a media range, in thousandths.
func weightOf(parameters string) (thousandths int, ok bool) {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		whole, fraction, _ := strings.Cut(value, ".")
		if whole != "0" && whole != "1" || len(fraction) > 3 {
			return 0, false
		}
		for _, digit := range []byte((whole + fraction + "000")[:4]) {
			if digit < '0' || digit > '9' {
				return 0, false
			}
			thousandths = 10*thousandths + int(digit-'0')
		}
		return thousandths, thousandths <= 1000
	}
	return 1000, true
}
