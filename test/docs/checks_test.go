package docs_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// update has TestChecksAreListed, TestReasonsAreDocumented and TestExamplesAreListed write
// their tables into the pages:
//
//	go test ./test/docs -run 'Are(Listed|Documented)$' -update
var update = flag.Bool("update", false, "write the tables of docs/checks.md, docs/reference/refusals.md and examples/README.md")

const checksPage = "docs/checks.md"

// checkNumbers are the numbers of all checks, each letter with its last one.
var checkNumbers = []struct {
	letter string
	last   int
}{{"A", 10}, {"B", 12}, {"C", 6}, {"D", 8}, {"E", 4}, {"R", 47}}

// withoutTest are the checks that do not apply here. docs/checks.md says why.
var withoutTest = []string{"R16"}

var (
	testFunction = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9_]*)\(`)
	leadingCheck = regexp.MustCompile(`^_?([A-ER][1-9][0-9]*)`)
	singleCheck  = regexp.MustCompile(`^[A-ER][1-9][0-9]*$`)
	checkRow     = regexp.MustCompile(`(?m)^\| ([A-Z][0-9]+) \| (.+) \| (.*) \|$`)
)

// numbersOf returns the numbers of the checks in the name of a test. They come
// first, as in TestR24B7WildcardsMatchNothing, or after underscores, as in
// TestDenyListCoversProxies_A9_C2.
func numbersOf(test string) []string {
	var numbers []string
	rest := strings.TrimPrefix(test, "Test")
	for match := leadingCheck.FindStringSubmatch(rest); match != nil; match = leadingCheck.FindStringSubmatch(rest) {
		numbers = append(numbers, match[1])
		rest = rest[len(match[0]):]
	}
	for part := range strings.SplitSeq(rest, "_") {
		if singleCheck.MatchString(part) {
			numbers = append(numbers, part)
		}
	}
	return numbers
}

// testsByCheck returns the tests of every package by the number of their check.
func testsByCheck(t *testing.T) map[string][]string {
	t.Helper()
	tests := make(map[string][]string)
	for _, file := range filesOf(t, "_test.go") {
		for _, match := range testFunction.FindAllStringSubmatch(read(t, file), -1) {
			for _, number := range numbersOf(match[1]) {
				tests[number] = append(tests[number], match[1])
			}
		}
	}
	return tests
}

// TestChecksAreListed checks that docs/checks.md has a row for every number,
// with the tests whose names have that number, or the reason why there is none.
func TestChecksAreListed(t *testing.T) {
	exist := testsByCheck(t)
	text := read(t, checksPage)
	if *update {
		text = checkRow.ReplaceAllStringFunc(text, func(row string) string {
			cells := checkRow.FindStringSubmatch(row)
			if len(exist[cells[1]]) == 0 {
				return row
			}
			return fmt.Sprintf("| %s | %s | %s |", cells[1], cells[2], listTests(exist[cells[1]]))
		})
		if err := os.WriteFile(checksPage, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var order []string
	for _, row := range checkRow.FindAllStringSubmatch(text, -1) {
		number, cell := row[1], row[3]
		order = append(order, number)
		reason, none := strings.CutPrefix(cell, "none: ")
		switch {
		case none != slices.Contains(withoutTest, number) || none && len(reason) < 20:
			t.Errorf("%s has the tests %q", number, cell)
		case none && len(exist[number]) > 0:
			t.Errorf("%s has the tests %s", number, listTests(exist[number]))
		case !none && cell != listTests(exist[number]):
			t.Errorf("%s has the tests %s, not %s; run 'go test ./test/docs -run TestChecksAreListed -update'", number, listTests(exist[number]), cell)
		}
		delete(exist, number)
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
	for number, tests := range exist {
		t.Errorf("%s has the number %s, which has no row", listTests(tests), number)
	}
}

func listTests(tests []string) string {
	if len(tests) == 0 {
		return ""
	}
	return "`" + strings.Join(slices.Compact(slices.Sorted(slices.Values(tests))), "`, `") + "`"
}

func TestNumbersOf(t *testing.T) {
	for name, want := range map[string]string{
		"TestR12_R22_Confirmation": "R12 R22", "TestR24B7WildcardsOfACertificateMatchNothing": "R24 B7", "TestB12SVID": "B12",
		"TestR24SHA1Signature": "R24", "TestA1_ExactName": "A1", "TestDNOfOpenSSL": "", "TestR12_ThumbprintOfRFC8705": "R12",
		"TestDenyListCoversProxies_A9_C2": "A9 C2", "TestX5tS256OfTheExample_R12": "R12", "TestPageOfA4_Paper": "",
	} {
		if got := strings.Join(numbersOf(name), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
