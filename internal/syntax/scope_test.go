package syntax

import "testing"

func TestCheckScope(t *testing.T) {
	for s, want := range map[string]bool{
		"api1": true, "https://a/b.read": true, "!#[]~": true,
		"": false, "a b": false, `a"b`: false, `a\b`: false, "a\tb": false, "é": false, "a\x7f": false,
	} {
		if err := CheckScope(s); (err == nil) != want {
			t.Errorf("CheckScope(%q) = %v", s, err)
		}
	}
}
