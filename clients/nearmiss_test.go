package clients

import (
	"fmt"
	"testing"
)

// TestNearSubject: among any number of subjects, the one that differs in a letter is
// found, wherever that letter is if there are few, and nothing is said about several.
func TestNearSubject(t *testing.T) {
	for _, count := range []int{10, maxNearSubjects, 20 * maxNearSubjects} {
		var list []*Client
		for i := range count {
			subject := fmt.Sprintf("CN=partner-%x,OU=production,O=company", uint64(i+1)*0x9e3779b97f4a7c15)
			list = append(list, mustClient(t, Record{ClientID: fmt.Sprint("c", i), SubjectDN: Strings{subject}}))
		}
		list = append(list, mustClient(t, Record{ClientID: "first", SubjectDN: Strings{"CN=billing-1,O=company"}}),
			mustClient(t, Record{ClientID: "second", SubjectDN: Strings{"CN=billing-2,O=company"}}))
		registry, err := newRegistry(list)
		if err != nil {
			t.Fatal(err)
		}
		own := list[count/2].Credentials[0].Value
		for text, want := range map[string]string{
			own[:len(own)-1] + "i":                      fmt.Sprint("c", count/2),
			own[:len(own)-12] + "x" + own[len(own)-11:]: fmt.Sprint("c", count/2),
			"CN=billing-1,O=compny":                     "first",
			"CN=billing-3,O=company":                    "", // two are as near
			"CN=something,O=else":                       "",
		} {
			got := ""
			if near := registry.NearSubject(text); near != nil {
				got = near.Client.ID
			}
			if got != want {
				t.Errorf("among %d, near %q is %q, want %q", count, text, got, want)
			}
		}
	}
}
