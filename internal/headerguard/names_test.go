package headerguard

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"X-Client-ID": "", "x": "", "X_Client": "", "X.Client": "", "X!#$%&'*+^`|~": "",
		"": "is empty", "X Client": "is not a header name", "X:Client": "is not a header name", "X-Clïent": "is not a header name", "X\r\nY": "is not a header name", "X\x00": "is not a header name",
		"X-Forwarded-For": "reverse_proxy overwrites", "x_forwarded_host": "reverse_proxy overwrites", "X-FORWARDED-PROTO": "reverse_proxy overwrites",
		"Connection": "belongs to the connection", "connection": "belongs to the connection", "Content_Length": "belongs to the connection", "TE": "belongs to the connection",
		"Trailer": "belongs to the connection", "transfer-encoding": "belongs to the connection", "Upgrade": "belongs to the connection", "Host": "belongs to the connection",
		"Keep-Alive": "belongs to the connection", "Proxy-Connection": "belongs to the connection", "Expect": "belongs to the connection", "Alt-Svc": "belongs to the connection",
	} {
		switch err := CheckName(name); {
		case want == "" && err != nil:
			t.Errorf("%q: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

func TestCheckKept(t *testing.T) {
	set := []string{"X-Client-ID", "X-Tenant"}
	for name, want := range map[string]string{
		"Client-Cert": "", "X-Ssl-*": "", "X-Consumer-Username": "", "X-Client-ID-Old": "", "X-Ten": "", "X-Client-I": "",
		"X-Client-ID": "header 'X-Client-ID' is set", "x_client_id": "header 'X-Client-ID' is set", "X-*": "header 'X-Client-ID' is set", "X-T*": "header 'X-Tenant' is set",
		"*": "is empty", "**": "has a * that is not at the end", "X-*-Dn": "has a * that is not at the end", "X Y": "is not a header name", "Connection": "belongs to the connection", "Connection*": "belongs to the connection",
	} {
		switch err := CheckKept(name, set); {
		case want == "" && err != nil:
			t.Errorf("%q: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// TestLongNames checks that the bound on how much of a name is compared lets no
// protected name through.
func TestLongNames(t *testing.T) {
	longest := "X-" + strings.Repeat("a", maxName-2)
	names := New([]string{longest}, nil, nil)
	for name, want := range map[string]bool{
		longest: true, strings.ToUpper(longest): true, longest + "b": false, longest[:maxName-1]: false,
		"X-Ssl-" + strings.Repeat("a", 1<<16): true, "Y-Ssl-" + strings.Repeat("a", 1<<16): false,
	} {
		if got := names.protects(name); got != want {
			t.Errorf("%.20s… of %d: %t, want %t", name, len(name), got, want)
		}
	}
	if err := CheckName(longest + "b"); err == nil {
		t.Error("a name can be configured that is longer than what is compared")
	}
}
