package syntax

import "fmt"

// CheckRealmName reports why name is not a valid realm name. Realm names become
// part of file names and headers.
func CheckRealmName(name string) error {
	if name == "" || len(name) > 63 {
		return fmt.Errorf("realm name '%.80s' has %d characters; use 1 to 63", name, len(name))
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("realm name %q contains %q; use a-z, 0-9 and hyphens", name, c)
		}
	}
	return nil
}
