package check

import (
	"fmt"
	"strings"
	"testing"
)

// TestManyFindingsHideNoError checks that findings are bounded, that those left out are
// counted, and that an error is among the findings whatever came before it.
func TestManyFindingsHideNoError(t *testing.T) {
	var f Findings
	for i := range maxFindings + 7 {
		for range 2 {
			f.Add(CodeUnused, fmt.Sprint(i), "unused")
		}
	}
	f.AddError("realm x", fmt.Errorf("it is wrong; mend it"))
	list := f.Sorted()
	if len(list) != maxFindings+2 || list[0].Sentence != "it is wrong" || list[0].Severity != Error || Count(list, Error) != 1 {
		t.Fatalf("%d findings, the first is %+v", len(list), list[0])
	}
	told := false
	for _, finding := range list {
		told = told || finding.Severity == Warning && strings.Contains(finding.Sentence, "7 more")
	}
	if !told {
		t.Error("nothing says that warnings were left out")
	}
}
