package source

import "testing"

func TestDialAddress(t *testing.T) {
	for address, want := range map[string]string{
		"auth.localhost:443": "localhost:443", "a.b.LOCALHOST.:8443": "localhost:8443",
		"localhost:443": "localhost:443", "notlocalhost:443": "notlocalhost:443", "localhost.example.com:443": "localhost.example.com:443",
		"127.0.0.1:443": "127.0.0.1:443", "[::1]:443": "[::1]:443", "auth.localhost": "auth.localhost", "": "",
	} {
		if got := DialAddress(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}
