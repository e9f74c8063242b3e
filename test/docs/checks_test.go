package docs_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// checkNumbers are the numbers of all checks, each letter with its last one.
var checkNumbers = []struct {
	letter string
	last   int
}{{"A", 10}, {"B", 12}, {"C", 6}, {"D", 8}, {"E", 4}, {"R", 47}}

// withoutTest are the checks that do not apply here. docs/checks.md says why.
var withoutTest = []string{"R16"}

// numbersOf are the checks that the name of a test begins with, as in
// TestR12_R22_Confirmation or TestR5B7EachKindOnlyWithItsOwn.
func numbersOf(test string) []string {
	begin := regexp.MustCompile(`^_?([A-ER][1-9][0-9]*)`)
	var numbers []string
	for rest := strings.TrimPrefix(test, "Test"); ; {
		match := begin.FindStringSubmatch(rest)
		if match == nil {
			return numbers
		}
		numbers = append(numbers, match[1])
		rest = rest[len(match[0]):]
	}
}

// numberedTests returns the tests of numbered checks, of every package.
func numberedTests(t *testing.T) []string {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (Test[A-ER][0-9]+[A-Za-z0-9_]*)\(`)
	var tests []string
	for _, file := range filesOf(t, "_test.go") {
		for _, match := range declared.FindAllStringSubmatch(read(t, file), -1) {
			tests = append(tests, match[1])
		}
	}
	return tests
}

// TestChecksAreListed: docs/checks.md has a row for every number, and in it the
// tests whose names have that number and no others, or why there is none.
func TestChecksAreListed(t *testing.T) {
	rows := make(map[string][]string)
	reasons := make(map[string]string)
	var order []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z][0-9]+) \| (.+) \| (.*) \|$`).FindAllStringSubmatch(read(t, "docs/checks.md"), -1) {
		number, check, tests := row[1], row[2], row[3]
		if _, twice := rows[number]; twice || check == "" {
			t.Errorf("the row of %s stands twice or says nothing", number)
		}
		order = append(order, number)
		rows[number] = nil
		for _, name := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(tests, -1) {
			rows[number] = append(rows[number], name[1])
		}
		if reason, none := strings.CutPrefix(tests, "none: "); none {
			reasons[number] = reason
		}
		if !slices.IsSorted(rows[number]) || len(slices.Compact(slices.Clone(rows[number]))) != len(rows[number]) {
			t.Errorf("the tests of %s are not in order, or stand twice: %q", number, rows[number])
		}
	}
	var numbers []string
	for _, kind := range checkNumbers {
		for i := range kind.last {
			numbers = append(numbers, fmt.Sprint(kind.letter, i+1))
		}
	}
	if !slices.Equal(order, numbers) {
		t.Errorf("the rows are %q, want %q", order, numbers)
	}
	exist := numberedTests(t)
	for number, tests := range rows {
		if slices.Contains(withoutTest, number) != (len(tests) == 0) || (len(tests) == 0) != (len(reasons[number]) > 20) {
			t.Errorf("%s has the tests %q and the reason %q", number, tests, reasons[number])
		}
		for _, test := range tests {
			if !slices.Contains(exist, test) {
				t.Errorf("%s has %s, which does not exist", number, test)
			}
			if !slices.Contains(numbersOf(test), number) {
				t.Errorf("%s has %s, whose name has not the number", number, test)
			}
		}
	}
	for _, test := range exist {
		for _, number := range numbersOf(test) {
			if !slices.Contains(rows[number], test) {
				t.Errorf("%s does not stand beside %s", test, number)
			}
		}
	}
}

func TestNumbersOf(t *testing.T) {
	for name, want := range map[string]string{
		"TestR12_R22_Confirmation": "R12 R22", "TestR24B7WildcardsOfACertificateMatchNothing": "R24 B7", "TestB12SVID": "B12",
		"TestR24SHA1Signature": "R24", "TestA1_ExactName": "A1", "TestDNOfOpenSSL": "", "TestR12_ThumbprintOfRFC8705": "R12",
	} {
		if got := strings.Join(numbersOf(name), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
