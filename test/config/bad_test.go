package config_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// badBlock has lines of a Caddyfile with a mistake, and the error about it. SHA256 and
// SHA1 stand for a hash.
type badBlock struct {
	block string
	line  int // of the mistake in the block; 0 if Caddy does not name it
	want  string
}

// Caddyfiles around a block. They are valid without it.
const (
	aroundRealm = "{\n\tmtls {\n\t\ttrust_pool file other.pem\nBLOCK\n\t}\n}\n"
	// aroundBareRealm has no trust pool, because a second one is a mistake
	aroundBareRealm     = "{\n\tmtls {\nBLOCK\n\t}\n}\n"
	aroundClient        = "{\n\tmtls {\n\t\tclient a {\n\t\t\tthumbprint " + otherSHA256 + "\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundIssuer        = "{\n\tmtls {\n\t\tissuer https://auth.example.com {\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundRevocation    = "{\n\tmtls {\n\t\trevocation {\n\t\t\tdeny a.txt\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundCertificate   = "{\n\tmtls {\n\t}\n}\n\n:443 {\n\tmtls_auth {\n\t\tforward_certificate {\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundGatewayToken  = "{\n\tmtls {\n\t\tissuer https://auth.example.com\n\t}\n}\n\n:443 {\n\tmtls_auth {\n\t\tforward_token {\n\t\t\taudience a\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundHandler       = "{\n\tmtls\n}\n\n:443 {\n\tmtls_auth {\nBLOCK\n\t}\n}\n"
	aroundIssuerHandler = "{\n\tmtls {\n\t\tissuer https://auth.example.com\n\t}\n}\n\n:443 {\n\tmtls_issuer {\nBLOCK\n\t}\n}\n"
	aroundBearer        = "{\n\tmtls {\n\t\tissuer https://auth.example.com\n\t}\n}\n\n:443 {\n\tmtls_bearer {\nBLOCK\n\t}\n}\n"
	aroundTrusted       = "{\n\tmtls\n}\n\n:443 {\n\tmtls_bearer {\n\t\ttrust_issuer https://login.example.net {\n\t\t\taudience a\nBLOCK\n\t\t}\n\t}\n}\n"
	aroundBareSite      = "{\n\tmtls\n}\n\n:443 {\nBLOCK\n}\n"
	aroundResources     = "{\n\tmtls {\n\t\tissuer https://auth.example.com {\n\t\t\tresource https://api.example.com {\n\t\t\t\tscopes read\n\t\t\t}\n\t\t}\n\t}\n}\n\n:443 {\nBLOCK\n}\n"
	aroundSite          = "{\n\tmtls {\n\t\tissuer https://auth.example.com\n\t}\n}\n\n:443 {\nBLOCK\n}\n"
)

// missing is the adapter's error about a missing argument of an option that is written
// so, after the last one that there is.
func missing(usage string, after ...string) string {
	name, _, _ := strings.Cut(usage, " ")
	if len(after) == 0 {
		return fmt.Sprintf("%s: an argument is missing; write '%s', or set the variable it comes from", name, usage)
	}
	return fmt.Sprintf("%s: an argument is missing after '%s'; write '%s'", name, after[0], usage)
}

// surplus is the adapter's error about an argument too many of an option that is
// written so, with " {" at the end if it may have a block.
func surplus(usage, argument string) string {
	name, _, takesAny := strings.Cut(usage, " ")
	if !takesAny {
		return fmt.Sprintf("%s: unexpected '%s'; write '%s' alone, or remove the line", name, argument, usage)
	}
	if line, hasBlock := strings.CutSuffix(usage, " {"); hasBlock {
		return fmt.Sprintf("%s: unexpected '%s'; write '%s { … }'", name, argument, line)
	}
	return fmt.Sprintf("%s: unexpected '%s'; write '%s', and put a value with spaces in quotes", name, argument, usage)
}

func checkBadBlocks(t *testing.T, around string, tests []badBlock) {
	t.Helper()
	if err := os.Unsetenv("MTLS_TEST_UNSET"); err != nil {
		t.Fatal(err)
	}
	hashes := strings.NewReplacer("SHA256", someSHA256, "SHA1", someSHA1)
	if _, _, err := adaptText("Caddyfile", strings.Replace(around, "BLOCK", "", 1)); err != nil {
		t.Fatalf("without a bad block: %v", err)
	}
	firstLine := 1 + strings.Count(around[:strings.Index(around, "BLOCK")], "\n")
	for _, test := range tests {
		t.Run(test.block, func(t *testing.T) {
			_, _, err := adaptText("Caddyfile", strings.Replace(around, "BLOCK", hashes.Replace(test.block), 1))
			if test.line == 0 {
				testtool.WantError(t, err, hashes.Replace(test.want), "Caddyfile:")
				return
			}
			testtool.WantError(t, err, hashes.Replace(test.want)+fmt.Sprintf(", at Caddyfile:%d", firstLine+test.line-1))
		})
	}
}

func TestBadRealm(t *testing.T) {
	checkBadBlocks(t, "{\n\tadmin off\nBLOCK\n}\n", []badBlock{
		{`mtls "{$MTLS_TEST_UNSET}"`, 1, "realm name '' has 0 characters; use 1 to 63"},
		{"mtls " + strings.Repeat("a", 64), 1, "has 64 characters; use 1 to 63"},
		{"mtls a_b", 1, `realm name "a_b" contains '_'; use a-z, 0-9 and hyphens`},
		{"mtls a b {\n}", 1, surplus("mtls [<realm>] {", "b")},
		{"mtls {\nclient a {\nsubject CN=a\n}\n}\nmtls default {\nclient a {\nsubject CN=b\n}\n}", 9, "client 'a' is declared twice; give each client one block"},
		{"mtls {\nissuer https://a.example\n}\nmtls {\nissuer https://a.example\n}", 5, "duplicate option 'issuer'; declare another realm for another issuer"},
		{"mtls {\ntrust_pool file a.pem\n}\nmtls {\ntrust_pool file a.pem\n}", 5, "duplicate option 'trust_pool'; use 'combined' for several sources"},
		{"mtls {\nshadow_trust_pool file b.pem\n}\nmtls {\nshadow_trust_pool file b.pem\n}", 5, "duplicate option 'shadow_trust_pool'; use 'combined' for several sources"},
		{"mtls {\nstorage file_system a\n}\nmtls {\nstorage file_system a\n}", 5, "duplicate option 'storage'; a realm has one storage"},
		{"mtls {\nissuer https://a.example\nissuer https://b.example\n}", 3, "duplicate option 'issuer'; declare another realm for another issuer"},
	})
	checkBadBlocks(t, aroundBareRealm, []badBlock{
		{"trust_pool", 1, missing("trust_pool <module> ...")},
		{"trust_pool file", 1, "no certificates specified"},
		{"trust_pool file {$MTLS_TEST_UNSET}", 1, "no certificates specified"},
		{"trust_pool file ca.pem {env.CA_FILE}", 1, "trust_pool: file '{env.CA_FILE}': placeholders are not expanded here; write {$CA_FILE} for an environment variable"},
		{"shadow_trust_pool file {file./etc/ca}", 1, "shadow_trust_pool: file '{file./etc/ca}': placeholders are not expanded here; write {$NAME} for an environment variable"},
		{"storage file_system {env.DATA}/mtls", 1, "storage: file '{env.DATA}/mtls': placeholders are not expanded here; write {$DATA} for an environment variable"},
		{`trust_pool "file ca.pem"`, 1, "trust_pool: unknown module 'file ca.pem'; did you mean 'file ca.pem' without quotes?"},
		{"trust_pool file:///etc/ca.pem", 1, "trust_pool: unknown module 'file:///etc/ca.pem'; did you mean 'file /etc/ca.pem'?"},
		{"trust_pool file a.pem, b.pem", 1, "trust_pool: 'a.pem,' ends with a comma; separate values by spaces alone"},
		{"trust_pool ca.pem", 1, "trust_pool: unknown module 'ca.pem'; did you mean 'file ca.pem'?"},
		{"trust_pool https://ca.example.com/ca.pem", 1, "trust_pool: unknown module 'https://ca.example.com/ca.pem'; did you mean 'http https://ca.example.com/ca.pem'?"},
		{"trust_pool \"{$MTLS_TEST_UNSET}\" ca.pem", 1, "trust_pool is empty; name a module"},
		{"trust_pool files ca.pem", 1, "trust_pool: unknown module 'files'; did you mean 'file'?"},
		{"trust_pool_refresh", 1, missing("trust_pool_refresh <duration>")},
		{"trust_pool_refresh {$MTLS_TEST_UNSET}", 1, missing("trust_pool_refresh <duration>")},
		{"trust_pool_refresh 1h 2h", 1, surplus("trust_pool_refresh <duration>", "2h")},
		{"trust_pool_refresh hourly", 1, "trust_pool_refresh 'hourly' is not a duration; write it as 30s, 90m, 12h or 7d"},
		{"trust_pool_refresh 59s", 1, "trust_pool_refresh 59s is too short; use at least 1m"},
		{"trust_pool_refresh 0", 1, "trust_pool_refresh 0s is too short; use at least 1m"},
		{"trust_pool_refresh 1h\ntrust_pool_refresh 1h", 2, "duplicate option 'trust_pool_refresh'; keep one"},
		{"shadow_trust_pool", 1, missing("shadow_trust_pool <module> ...")},
		{"shadow_trust_pool file {$MTLS_TEST_UNSET}", 1, "no certificates specified"},
		{"shadow_trust_pool next/ca.pem", 1, "shadow_trust_pool: unknown module 'next/ca.pem'; did you mean 'file next/ca.pem'?"},
		{"shadow_trust_pool nonsense", 1, "shadow_trust_pool: unknown module 'nonsense'; use one of combined, file, http, inline, pki_intermediate, pki_root, rig, storage, system"},
		{"shadow_trust_pool file a.pem\nshadow_trust_pool file a.pem", 2, "duplicate option 'shadow_trust_pool'; use 'combined' for several sources"},
	})
	checkBadBlocks(t, aroundRealm, []badBlock{
		{"trust_pool file b.pem", 1, "duplicate option 'trust_pool'; use 'combined' for several sources"},
		{"trust_pool_refresh 1h {\nx\n}", 1, "trust_pool_refresh: it takes no block; remove the braces and write 'trust_pool_refresh <duration>'"},
		{"storage /var/lib/mtls", 1, "storage: unknown module '/var/lib/mtls'; did you mean 'file_system /var/lib/mtls'?"},
		{"clients_from clients.json", 1, "clients_from: unknown module 'clients.json'; did you mean 'file clients.json'?"},
		{"storage", 1, missing("storage <module> ...")},
		{"storage nowhere", 1, "storage: unknown module 'nowhere'; the only one is file_system"},
		{"clients_from", 1, missing("clients_from <source> ...")},
		{"clients_from storage a", 1, "clients_from: storage: unexpected 'a'; it takes a block only"},
		{"clients_from storage {\nrefresh 1s\n}", 2, "unrecognized clients_from storage option 'refresh'; the only one is on_bad_record"},
		{"clients_from storage {\non_bad_record\n}", 2, missing("on_bad_record refuse|skip")},
		{"clients_from storage {\non_bad_record ignore\n}", 2, "on_bad_record 'ignore': unknown word; use refuse or skip"},
		{"clients_from storage {\non_bad_record skip\non_bad_record skip\n}", 3, "duplicate option 'on_bad_record'; keep one"},
		{"clients_from nowhere a.json", 1, "clients_from: unknown module 'nowhere'; use one of file, http, postgres, storage"},
		{"clients_from file", 1, "clients_from: file: an argument is missing; write 'file <path>...', or set the variable it comes from"},
		{`clients_from file "{$MTLS_TEST_UNSET}"`, 1, "file is empty; give it a value or remove it"},
		{"clients_from file a.json a.json", 1, "duplicate file 'a.json'; keep one"},
		{"clients_from file a.json {\nx\n}", 2, "unrecognized clients_from file option 'x'; the only one is on_bad_record"},
		{"clients_from file a.json {\non_bad_record\n}", 2, missing("on_bad_record refuse|skip")},
		{"clients_from file a.json {\non_bad_record ignore\n}", 2, "on_bad_record 'ignore': unknown word; use refuse or skip"},
		{"clients_from file a.json {\non_bad_record skip\non_bad_record skip\n}", 3, "duplicate option 'on_bad_record'; keep one"},
		{"clients_from https://a.example/clients.json", 1, "clients_from: unknown module 'https://a.example/clients.json'; did you mean 'http https://a.example/clients.json'?"},
		{"clients_from http", 1, missing("http <https-url>")},
		{"clients_from http https://a.example https://b.example", 1, surplus("http <https-url> {", "https://b.example")},
		{`clients_from http "{$MTLS_TEST_UNSET}"`, 1, "http is empty; give it a value or remove the line"},
		{"clients_from http http://a.example/clients.json", 1, "http: 'http://a.example/clients.json' is not an https URL; use one, or a file"},
		{"clients_from http clients.json", 1, "http: 'clients.json' is not an https URL; use one, or a file"},
		{"clients_from http https://a.example {\nx\n}", 2, "unrecognized clients_from http option 'x'; use one of header, keep_copy, max_size, on_bad_record, refresh, timeout"},
		{"clients_from http https://a.example {\nrefresh 0\n}", 2, "refresh 0s is too short; use at least 1s"},
		{"clients_from http https://a.example {\ntimeout 10ms\n}", 2, "timeout 10ms is too short; use at least 1s"},
		{"clients_from http https://a.example {\nheader A\n}", 2, "header: an argument is missing after 'A'; write 'header <name> <value>'"},
		{"clients_from http https://a.example {\nheader A {$MTLS_TEST_UNSET}\n}", 2, "header: an argument is missing after 'A'; write 'header <name> <value>'"},
		{"clients_from http https://a.example {\nheader A \"{$MTLS_TEST_UNSET}\"\n}", 2, "header A is empty; give it a value or remove the line"},
		{"clients_from http https://a.example {\nheader A: secret\n}", 2, `header "A:": it is not the name of a header`},
		{"clients_from http https://a.example {\nheader Host secret\n}", 2, `header "Host": this header is set by the source itself; remove it`},
		{"clients_from http https://a.example {\nheader a secret\nheader A secret\n}", 3, "duplicate header A; keep one"},
		{"clients_from http https://a.example {\nmax_size large\n}", 2, "max_size 'large' is not a size; write it as 512MiB or 2GiB"},
		{"clients_from http https://a.example {\nmax_size 0\n}", 2, "max_size '0' is not a size; write it as 512MiB or 2GiB"},
		{"clients_from http https://a.example {\nmax_size 1MB\nmax_size 1MB\n}", 3, "duplicate option 'max_size'; keep one"},
		{"clients_from http https://a.example {\nkeep_copy\n}", 2, missing("keep_copy <file>")},
		{"clients_from http https://a.example {\non_bad_record ignore\n}", 2, "on_bad_record 'ignore': unknown word; use refuse or skip"},
		{"clients_from postgres", 1, "clients_from: postgres: an argument is missing; write 'postgres <dsn> { … }'"},
		{`clients_from postgres "{$MTLS_TEST_UNSET}"`, 1, "postgres: the DSN is empty; write one, or set the variable it comes from"},
		{"clients_from postgres host=a password=SECRET", 1, "postgres: there is more than one argument; put a DSN with spaces in quotes"},
		{"clients_from postgres://u:SEC/RET@a/b", 1, "clients_from: unknown module '…'; did you mean 'postgres <dsn>'?"},
		{"clients_from postgres postgres://u:SECRET@a/b,", 1, "clients_from: '…' ends with a comma; separate values by spaces alone"},
		{"clients_from postgres postgres://a {\nx\n}", 2, "unrecognized clients_from postgres option 'x'; use one of keep_copy, load_timeout, on_bad_record, read_only, refresh, table"},
		{"clients_from postgres postgres://a {\ntable a;b\n}", 2, "clients_from: table 'a;b': ';' needs double quotes around the name; write it as SQL does, as in mtls_clients, partners.clients or \"Partners\".\"Clients\""},
		{"clients_from postgres postgres://a {\ntable a b\n}", 2, "table: unexpected 'b'; write 'table <name>', and put a value with spaces in quotes"},
		{"clients_from postgres postgres://a {\nkeep_copy\n}", 2, missing("keep_copy <file>")},
		{"clients_from postgres postgres://a {\nread_only yes\n}", 2, "read_only: unexpected 'yes'; write 'read_only' alone, or remove the line"},
		{"clients_from postgres postgres://a {\non_bad_record ignore\n}", 2, "on_bad_record 'ignore': unknown word; use refuse or skip"},
		{"clients_from postgres postgres://a {\nrefresh 0s\n}", 2, "refresh '0s' is not between 1s and 1h0m0s; choose a duration in between"},
		{"clients_from postgres postgres://a {\nload_timeout 2h\n}", 2, "load_timeout '2h0m0s' is not between 1s and 1h0m0s; choose a duration in between"},
		{"issuer", 1, missing("issuer <https-url>")},
		{"issuer https://a.example https://b.example", 1, surplus("issuer <https-url> {", "https://b.example")},
		{`issuer "{$MTLS_TEST_UNSET}"`, 1, "issuer is empty; give it a value or remove the line"},
		{"issuer http://auth.example.com", 1, "issuer 'http://auth.example.com': not an https URL; use one like https://auth.example.com"},
		{"issuer https://auth.example.com/#a", 1, "the URL has a query or fragment; remove it (RFC 8414 §2)"},
		{"issuer https://auth.example.com/?a=b", 1, "the URL has a query or fragment; remove it (RFC 8414 §2)"},
		{"client {\nsubject CN=a\n}", 1, missing("client <client_id>")},
		{"client a b {\nsubject CN=a\n}", 1, surplus("client <client_id> {", "b")},
		{"client \"{$MTLS_TEST_UNSET}\" {\nsubject CN=a\n}", 1, "client_id is empty; name the client"},
		{"client \"a b\" {\nsubject CN=a\n}", 1, `client_id "a b" contains ' '; use letters, digits and ._~:@/+-,`},
		{"client a, {\nsubject CN=a\n}", 1, "client_id 'a,' ends with a comma; remove it, and separate several by spaces alone"},
		{"client {env.CLIENT_ID} {\nsubject CN=a\n}", 1, "contains '{'; use letters, digits and ._~:@/+-,"},
		{"client " + strings.Repeat("a", 201) + " {\nsubject CN=a\n}", 1, "has 201 characters; at most 200 are allowed"},
		{"client a", 1, "client 'a' has no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"},
		{"client a {\n}", 2, "client 'a' has no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"},
		{"client a {\nscopes api1\n}", 3, "client 'a' has no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks"},
		{"client a {\nsubject CN=a\n}\nclient a {\nsubject CN=b\n}", 6, "client 'a' is declared twice; give each client one block"},
	})
}

func TestBadRevocation(t *testing.T) {
	checkBadBlocks(t, aroundRealm, []badBlock{
		{"refusals on {\n}", 1, "refusals: unexpected 'on'; it takes a block only"},
		{"refusals", 1, "refusals: it has no effect without keep, keep_for or metrics_by_client; add one or remove the block"},
		{"refusals {\n}", 2, "refusals: it has no effect without keep, keep_for or metrics_by_client; add one or remove the block"},
		{"refusals {\nkept 1\n}", 2, "unrecognized refusals option 'kept'; use one of keep, keep_for, metrics_by_client"},
		{"refusals {\nkeep\n}", 2, missing("keep <count>")},
		{"refusals {\nkeep 1 2\n}", 2, surplus("keep <count>", "2")},
		{"refusals {\nkeep many\n}", 2, "keep 'many' is not a number; write it in digits"},
		{"refusals {\nkeep 1e4\n}", 2, "keep '1e4' is not a number; write it in digits"},
		{"refusals {\nkeep {env.KEEP}\n}", 2, "keep '{env.KEEP}': placeholders are not expanded in numbers; write {$NAME} for an environment variable"},
		{"refusals {\nkeep 99999999999999999999\n}", 2, "keep '99999999999999999999' is not a number; write it in digits"},
		{"refusals {\nkeep 0\n}", 2, "keep 0 is out of range; use 1 to 100000"},
		{"refusals {\nkeep 100001\n}", 2, "keep 100001 is out of range; use 1 to 100000"},
		{"refusals {\nkeep 1\nkeep 1\n}", 3, "duplicate option 'keep'; keep one"},
		{"refusals {\nkeep_for forever\n}", 2, "keep_for 'forever' is not a duration; write it as 30s, 90m, 12h or 7d"},
		{"refusals {\nkeep_for 59s\n}", 2, "keep_for 59s is out of range; use 1m to 30d"},
		{"refusals {\nkeep_for 31d\n}", 2, "keep_for 744h0m0s is out of range; use 1m to 30d"},
		{"refusals {\nmetrics_by_client -1\n}", 2, "metrics_by_client -1 is out of range; use 0 to 10000"},
		{"refusals {\nmetrics_by_client 10001\n}", 2, "metrics_by_client 10001 is out of range; use 0 to 10000"},
		{"refusals {\nmetrics_by_client 0\nmetrics_by_client 0\n}", 3, "duplicate option 'metrics_by_client'; keep one"},
		{"refusals {\nkeep 1\n}\nrefusals {\nkeep 2\n}", 4, "duplicate option 'refusals'; a realm has one; name all options there"},
		{"certificate_expiring {\n}", 2, "certificate_expiring: it is empty, so it has no effect; add within or response_header, or remove the block"},
		{"certificate_expiring 30d", 1, "certificate_expiring: unexpected '30d'; it takes a block only"},
		{"certificate_expiring {\nwithin\n}", 2, missing("within <duration>")},
		{"certificate_expiring {\nwithin soon\n}", 2, "within 'soon' is not a duration; write it as 30s, 90m, 12h or 7d"},
		{"certificate_expiring {\nwithin -1d\n}", 2, "within -24h0m0s is out of range; use more than 0 and at most 366d"},
		{"certificate_expiring {\nwithin 367d\n}", 2, "within 8808h0m0s is out of range; use more than 0 and at most 366d"},
		{"certificate_expiring {\nwithin 1d\nwithin 2d\n}", 3, "duplicate option 'within'; keep one"},
		{"certificate_expiring {\nresponse_header \"\"\n}", 2, "response_header is empty; give it a value or remove the line"},
		{"certificate_expiring {\nresponse_header a:b\n}", 2, "response_header: \"a:b\" is not a header name; use letters, digits and hyphens"},
		{"certificate_expiring {\nresponse_header Set-Cookie\n}", 2, "response_header: header 'Set-Cookie' means something else to clients; choose another name"},
		{"certificate_expiring {\nresponse_header location\n}", 2, "response_header: header 'location' means something else to clients; choose another name"},
		{"certificate_expiring {\nresponse_header WWW-Authenticate\n}", 2, "response_header: header 'WWW-Authenticate' means something else to clients; choose another name"},
		{"certificate_expiring {\nresponse_header Content-Type\n}", 2, "response_header: header 'Content-Type' means something else to clients; choose another name"},
		{"certificate_expiring {\nresponse_header Access-Control-Allow-Origin\n}", 2, "response_header: header 'Access-Control-Allow-Origin' means something else to clients; choose another name"},
		{"certificate_expiring {\nresponse_header Connection\n}", 2, "response_header: header 'Connection' belongs to the connection; choose another name"},
		{"certificate_expiring {\nresponse_header\nresponse_header A\n}", 3, "duplicate option 'response_header'; keep one"},
		{"certificate_expiring {\nresponse_header A\nresponse_header\n}", 3, "duplicate option 'response_header'; keep one"},
		{"certificate_expiring {\nresponse_header A B\n}", 2, "response_header: unexpected 'B'; write 'response_header [<name>]', and put a value with spaces in quotes"},
		{"certificate_expiring {\ndays 3\n}", 2, "unrecognized certificate_expiring option 'days'; use one of response_header, within"},
		{"certificate_expiring {\nwithin 1d\n}\ncertificate_expiring {\nwithin 1d\n}", 4, "duplicate option 'certificate_expiring'; keep one"},
		{"fetch on {\n}", 1, "fetch: unexpected 'on'; it takes a block only"},
		{"fetch", 1, "fetch: it has no effect without trust_pool; add one or remove the block"},
		{"fetch {\n}", 2, "fetch: it has no effect without trust_pool; add one or remove the block"},
		{"fetch {\nproxy a\n}", 2, "unrecognized fetch option 'proxy'; the only one is trust_pool"},
		{"fetch {\ntrust_pool\n}", 2, missing("trust_pool <module> ...")},
		{"fetch {\ntrust_pool file a.pem\ntrust_pool file b.pem\n}", 3, "duplicate option 'trust_pool'; use 'combined' for several sources"},
		{"fetch {\ntrust_pool file a.pem\n}\nfetch {\ntrust_pool file b.pem\n}", 4, "duplicate option 'fetch'; a realm has one; name all its CAs there"},
		{"revocation on {\n}", 1, "revocation: unexpected 'on'; it takes a block only"},
		{"revocation {\n}", 2, "revocation: it names no source; add crl, ocsp or deny"},
		{"revocation {\nx\n}", 2, "unrecognized revocation option 'x'; use one of crl, deny, exempt, ocsp, on_unavailable, refresh"},
		{"revocation {\ndeny a\n}\nrevocation {\ndeny b\n}", 4, "duplicate option 'revocation'; name all sources in one block"},
		{"revocation {\ncrl\n}", 2, missing("crl <file-or-url>...")},
		{"revocation {\ncrl a.crl\ncrl a.crl\n}", 3, "duplicate crl 'a.crl'; keep one"},
		{"revocation {\ncrl \"{$MTLS_TEST_UNSET}\"\n}", 2, "crl is empty; give it a value or remove it"},
		{"revocation {\ncrl a.crl\nrefresh 1s\n}", 3, "refresh 1s is too short; use at least 1m"},
		{"revocation {\ncrl a.crl\nrefresh often\n}", 3, "refresh 'often' is not a duration; write it as 30s, 90m, 12h or 7d"},
		{"revocation {\nocsp http://a.example/, http://b.example/\n}", 2, "ocsp 'http://a.example/,' ends with a comma; separate values by spaces alone"},
		{"revocation {\ncrl a.crl\nexempt\n}", 3, missing("exempt <hash>...")},
		{"revocation {\ncrl a.crl\nexempt bca0d040847f843c5ee0fa6eb494837470155868\n}", 3, "exempt 'bca0d040847f843c5ee0fa6eb494837470155868': it is a SHA-1 hash, which is not accepted here; expected SHA-256: 64 hexadecimal digits or 43 base64url characters"},
		{"revocation {\ndeny a\nexempt bca0d040847f843c5ee0fa6eb494837470155868bca0d040847f843c5ee0fa6e\n}", 4, "revocation: exempt has no effect with deny alone, which counts for exempt CAs too; remove it, or add crl or ocsp"},
		{"revocation {\ndeny\n}", 2, missing("deny <file>")},
		{"revocation {\ndeny a\ndeny b\n}", 3, "duplicate option 'deny'; keep one"},
		{"revocation {\ndeny a\non_unavailable maybe\n}", 3, "on_unavailable 'maybe': it is neither refuse nor allow"},
		{"revocation {\ndeny a\non_unavailable allow\n}", 4, "revocation: on_unavailable allow has no effect with deny alone, because that file is always available; remove it, or add crl or ocsp"},
	})
}

func TestBadClient(t *testing.T) {
	checkBadBlocks(t, aroundClient, []badBlock{
		{"subject client", 1, `subject: "client" is not a distinguished name, because it has no "="; write "CN=client" if that is the common name`},
		{"subject CN:client", 1, `subject: "CN:client" is not a distinguished name, because it has no "="; write "CN=client"`},
		{`subject "CN=client, partner"`, 1, `"partner" is not an attribute, because it has no "="; if it belongs to the value before it, write a backslash before the separator (as in "\,") or put that value in double quotes`},
		{`subject ""`, 1, "subject is empty; give it a value or remove it"},
		{"subject {$MTLS_TEST_UNSET}", 1, missing("subject <dn>")},
		{"subject CN=client, OU=production", 1, `a subject with spaces needs quotes; write subject "CN=client, OU=production"`},
		{"subject CN=a\nsubject CN=a", 2, "duplicate subject 'CN=a'; keep one"},
		{`subject "CN={$MTLS_TEST_UNSET},O=company"`, 1, "the value of CN is empty; write one, leave the attribute out, or set the variable it comes from"},
		{`subject "/O=company/CN=client"`, 1, `it is in the form that OpenSSL prints; write "CN=client,O=company" (RFC 4514)`},
		{`subject "CN=client\00.example"`, 1, "has the control, invisible or private character U+0000; remove it"},
		{"subject \"CN=cli\u200bent\"", 1, "has the control, invisible or private character U+200B; remove it"},
		{"thumbprint bca0d040", 1, `has 8 hexadecimal digits; expected SHA-256 (64 hexadecimal digits or 43 base64url characters) or SHA-1 (40 or 27)`},
		{"thumbprint e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1, "is the hash of empty input; hash the certificate's DER encoding"},
		{`thumbprint "{$MTLS_TEST_UNSET}"`, 1, "thumbprint is empty; give it a value or remove it"},
		{"thumbprint SHA256 SHA1", 1, "thumbprint: unexpected 'SHA1'; write 'thumbprint <hash>' or 'thumbprint <hash> until <time>'"},
		{"thumbprint bc a0 d0 40 84 7f 84 3c 5e e0 fa 6e b4 94 83 74 70 15 58 68", 1, `a thumbprint with spaces needs quotes; write thumbprint "bc a0 d0 40 84 7f 84 3c 5e e0 fa 6e b4 94 83 74 70 15 58 68"`},
		{"thumbprint bca0d040847f843c5ee0 fa6eb494837470155868 until 2030-01-01T00:00:00Z", 1, `a thumbprint with spaces needs quotes; write thumbprint "bca0d040847f843c5ee0 fa6eb494837470155868 until 2030-01-01T00:00:00Z"`},
		{"issued_by bca0d040847f843c5ee0fa6eb494837470155868 bca0d040847f843c5ee0fa6e", 1, `an issued_by with spaces needs quotes; write issued_by "bca0d040847f843c5ee0fa6eb494837470155868 bca0d040847f843c5ee0fa6e"`},
		{"thumbprint SHA256\nthumbprint SHA256", 2, "duplicate thumbprint 'SHA256'; keep one"},
		{"thumbprint SHA256 {\nx\n}", 1, "thumbprint: it takes no block; remove the braces and write 'thumbprint <hash> [until <time>]'"},
		{"thumbprint SHA256 until", 1, "thumbprint: the time is missing after 'until'; write 'thumbprint <hash> until 2027-01-31T12:00:00Z'"},
		{"thumbprint SHA256 before 2030-01-01T00:00:00Z", 1, "thumbprint: unexpected 'before'; write 'thumbprint <hash>' or 'thumbprint <hash> until <time>'"},
		{"thumbprint SHA256 until tomorrow", 1, "until 'tomorrow' is not a time; write it as 2027-01-31T12:00:00Z"},
		{"public_key", 1, missing("public_key <hash> [until <time>]")},
		{"public_key SHA1", 1, "it is a SHA-1 hash, which is not accepted here; expected SHA-256: 64 hexadecimal digits or 43 base64url characters"},
		{"public_key SHA256 until 2030-01-01", 1, "until '2030-01-01' is not a time; write it as 2027-01-31T12:00:00Z"},
		{"public_key SHA256\npublic_key SHA256", 2, "duplicate public_key 'SHA256'; keep one"},
		{"san_dns", 1, missing("san_dns <name>")},
		{"san_dns a.example b.example", 1, "san_dns: unexpected 'b.example'; write 'san_dns <name>' on a line for each, and put a value with spaces in quotes"},
		{`san_dns "{$MTLS_TEST_UNSET}"`, 1, "san_dns is empty; give it a value or remove it"},
		{"san_dns *.com", 1, "san_dns '*.com': '*.' must be above at least two labels, as in *.example.com; declare each name instead"},
		{"san_uri not-a-uri", 1, "san_uri 'not-a-uri': the URI has no scheme; write an absolute one, as in spiffe://example.com/billing or urn:example:billing (RFC 5280 §4.2.1.6)"},
		{"san_uri spiffe://prod.example/a*", 1, `san_uri 'spiffe://prod.example/a*': segment "a*": '*' stands for a whole segment; declare each URI instead, or write '*' alone between slashes`},
		{"san_ip 192.0.2.0/24", 1, "san_ip '192.0.2.0/24': a client certificate cannot have a range of addresses; declare each address"},
		{"san_email billing", 1, "san_email 'billing': the email address has no '@'; write local-part@domain"},
		{"certificate", 1, missing("certificate <pem-file>")},
		{"certificate a.pem b.pem", 1, "certificate: unexpected 'b.pem'; write 'certificate <pem-file>' on a line for each, and put a value with spaces in quotes"},
		{`certificate "{$MTLS_TEST_UNSET}"`, 1, "certificate is empty; give it a value or remove it"},
		{"certificate a.pem\ncertificate a.pem", 2, "duplicate certificate 'a.pem'; keep one"},
		{"jwks", 1, missing("jwks <file-or-https-url>")},
		{"jwks a.json b.json", 1, surplus("jwks <file-or-https-url>", "b.json")},
		{`jwks "{$MTLS_TEST_UNSET}"`, 1, "jwks is empty; give it a value or remove the line"},
		{"jwks a.json\njwks https://a.example/jwks", 2, "duplicate option 'jwks'; keep one"},
		{"jwks https://a.example/jwks\njwks https://b.example/jwks", 2, "duplicate option 'jwks'; keep one"},
		{"jwks http://a.example/jwks", 1, "jwks: 'http://a.example/jwks' is not an https URL; use one, or a file"},
		{"issued_by", 1, missing("issued_by <hash>...")},
		{`issued_by "{$MTLS_TEST_UNSET}"`, 1, "issued_by is empty; give it a value or remove it"},
		{"issued_by SHA256 SHA256", 1, "duplicate issued_by 'SHA256'; keep one"},
		{"issued_by SHA1", 1, "issued_by 'SHA1': it is a SHA-1 hash, which is not accepted here; expected SHA-256: 64 hexadecimal digits or 43 base64url characters"},
		{"require_chain\nrequire_chain", 2, "duplicate option 'require_chain'; keep one"},
		{"require_chain yes", 1, surplus("require_chain", "yes")},
		{"shared_credential\nshared_credential", 2, "duplicate option 'shared_credential'; keep one"},
		{"shared_credential b", 1, surplus("shared_credential", "b")},
		{"scopes", 1, missing("scopes <scope>...")},
		{`scopes api1 "{$MTLS_TEST_UNSET}"`, 1, "scopes is empty; give it a value or remove it"},
		{"scopes api1\nscopes api1", 2, "duplicate scopes 'api1'; keep one"},
		{`scopes api1 "a b"`, 1, "use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"},
		{"scopes api1, api2", 1, "scopes 'api1,' ends with a comma; separate values by spaces alone"},
		{"scopes api1\ndefault_scopes api1,", 2, "default_scopes 'api1,' ends with a comma; separate values by spaces alone"},
		{"scopes {env.SCOPE}", 1, "scope '{env.SCOPE}': placeholders are not expanded in scopes; write {$NAME} for an environment variable"},
		{"default_scopes", 1, missing("default_scopes <scope>...")},
		{`default_scopes "a\"b"`, 1, "use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"},
		{"scopes a\ndefault_scopes a a", 2, "duplicate default_scopes 'a'; keep one"},
		{"scopes a\ndefault_scopes b\ndisabled", 4, "client 'a': default scope 'b' is not one of its scopes; add it to them"},
		{"resources", 1, missing("resources <resource>...")},
		{`resources "{$MTLS_TEST_UNSET}"`, 1, "resources is empty; give it a value or remove it"},
		{"resources a b a", 1, "duplicate resources 'a'; keep one"},
		{"introspect", 1, missing("introspect <resource>...")},
		{`introspect a "{$MTLS_TEST_UNSET}"`, 1, "introspect is empty; give it a value or remove it"},
		{"introspect a\nintrospect a", 2, "duplicate introspect 'a'; keep one"},
		{"claim tenant", 1, missing("claim <name> <value>", "tenant")},
		{"claim tenant acme corp", 1, surplus("claim <name> <value>", "corp")},
		{`claim "ten ant" acme`, 1, "claim 'ten ant': use only A-Z a-z 0-9 _ . - in its name"},
		{"claim CNF acme", 1, "claim 'CNF' is reserved for the token itself; choose another name"},
		{"claim sub somebody", 1, "claim 'sub' is reserved for the token itself; choose another name"},
		{`claim tenant "{$MTLS_TEST_UNSET}"`, 1, "claim tenant is empty; give it a value or remove the line"},
		{"claim tenant acme\nclaim tenant other", 2, "duplicate claim 'tenant'; keep one"},
		{"token_lifetime", 1, missing("token_lifetime <duration>")},
		{"token_lifetime fortnight", 1, "token_lifetime 'fortnight' is not a duration; write it as 30s, 90m, 12h or 7d"},
		{"token_lifetime 0", 1, "token_lifetime 0s is too short; use at least 1s"},
		{"token_lifetime 500ms", 1, "token_lifetime 500ms is too short; use at least 1s"},
		{"token_lifetime {env.LIFETIME}", 1, "token_lifetime '{env.LIFETIME}': placeholders are not expanded in durations; write {$NAME} for an environment variable"},
		{"token_lifetime 1m\ntoken_lifetime 1m", 2, "duplicate option 'token_lifetime'; keep one"},
		{"disabled\ndisabled", 2, "duplicate option 'disabled'; keep one"},
		{"disabled false", 1, surplus("disabled", "false")},
	})
}

func TestBadIssuer(t *testing.T) {
	checkBadBlocks(t, aroundIssuer, []badBlock{
		{"token_lifetime", 1, missing("token_lifetime <duration>")},
		{"token_lifetime -1s", 1, "token_lifetime -1s is too short; use at least 1s"},
		{"token_lifetime 1x", 1, "token_lifetime '1x' is not a duration; write it as 30s, 90m, 12h or 7d"},
		{"token_lifetime 1h\ntoken_lifetime 1h", 2, "duplicate option 'token_lifetime'; keep one"},
		{"signing_algorithm", 1, missing("signing_algorithm <alg>")},
		{"signing_algorithm none", 1, "signing algorithm 'none' is not supported; use one of ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA"},
		{"signing_algorithm HS256", 1, "signing algorithm 'HS256' is not supported; use one of ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA"},
		{"signing_algorithm ES256\nsigning_algorithm ES256", 2, "duplicate option 'signing_algorithm'; keep one"},
		{"signing_key", 1, missing("signing_key <pem-file>")},
		{`signing_key "{$MTLS_TEST_UNSET}"`, 1, "signing_key is empty; give it a value or remove the line"},
		{"signing_key a.pem\nsigning_key b.pem", 2, "duplicate option 'signing_key'; keep one"},
		{"verify_key", 1, missing("verify_key <pem-or-jwk-file>...")},
		{`verify_key old.pem "{$MTLS_TEST_UNSET}"`, 1, "verify_key is empty; give it a value or remove it"},
		{"verify_key a.pem\nverify_key b.pem a.pem", 2, "duplicate verify_key 'a.pem'; keep one"},
		{"rotate_every", 1, missing("rotate_every <duration>")},
		{"rotate_every often", 1, "rotate_every 'often' is not a duration; write it as 30s, 90m, 12h or 7d"},
		{"rotate_every 30m", 1, "rotate_every 30m0s is too short; use at least 1h0m0s"},
		{"rotate_every 24h", 2, "issuer: announce_for 24h0m0s is not shorter than rotate_every 24h0m0s: a key would be replaced before it signs; make announce_for shorter or rotate_every longer"},
		{"signing_key key.pem\nrotate_every 90d", 3, "issuer: rotate_every and announce_for apply to managed keys only; remove them, or remove signing_key"},
		{"rotate_every 90d\nrotate_every 90d", 2, "duplicate option 'rotate_every'; keep one"},
		{"announce_for", 1, missing("announce_for <duration>")},
		{"announce_for -1h", 1, "announce_for -1h0m0s is too short; use at least 5s"},
		{"announce_for 1s", 1, "announce_for 1s is too short; use at least 5s"},
		{"announce_for 1h\nannounce_for 1h", 2, "duplicate option 'announce_for'; keep one"},
		{"mtls_alias https://a.example https://b.example", 1, surplus("mtls_alias <https-url>", "https://b.example")},
		{"mtls_alias mtls.example.com", 1, "mtls_alias 'mtls.example.com': not an https URL; use one like https://auth.example.com"},
		{"mtls_alias https://a.example\nmtls_alias https://b.example", 2, "duplicate option 'mtls_alias'; keep one"},
		{"mtls_alias https://a.example?x", 1, "the URL has a query or fragment; remove it (RFC 8414 §2)"},
		{"audience", 1, missing("audience <aud>...")},
		{"audience a, b", 1, "audience 'a,' ends with a comma; separate values by spaces alone"},
		{"audience a a", 1, "duplicate audience 'a'; keep one"},
		{`audience "{$MTLS_TEST_UNSET}"`, 1, "audience is empty; give it a value or remove it"},
		{"scope_claim", 1, missing("scope_claim string|array")},
		{"scope_claim string array", 1, surplus("scope_claim string|array", "array")},
		{"scope_claim Array", 1, "scope_claim 'Array': not a form of the claim; use string or array"},
		{`scope_claim "{$MTLS_TEST_UNSET}"`, 1, "scope_claim is empty; give it a value or remove the line"},
		{"scope_claim string\nscope_claim array", 2, "duplicate option 'scope_claim'; keep one"},
		{"resource {\nscopes a\n}", 1, missing("resource <name>")},
		{"resource \"{$MTLS_TEST_UNSET}\" {\nscopes a\n}", 1, "resource is empty; give it a value or remove the line"},
		{"resource a {\nscope a\n}", 2, "unrecognized resource option 'scope'; did you mean 'scopes'?"},
		{"resource a {\nscopes\n}", 2, missing("scopes <scope>...")},
		{"resource a {\nscopes \"a b\"\n}", 2, "use printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"},
		{"resource a {\nscopes a a\n}", 2, "duplicate scopes 'a'; keep one"},
		{"resource a {\nscopes {env.SCOPE}\n}", 2, "scope '{env.SCOPE}': placeholders are not expanded in scopes; write {$NAME} for an environment variable"},
		{"resource a {\nscopes x\n}\nresource a {\nscopes y\n}", 6, "resource 'a' is declared twice; merge the two"},
		{"profile", 1, missing("profile fapi2")},
		{"profile fapi1", 1, "profile 'fapi1': unknown profile; the only one is fapi2"},
		{"profile fapi2\nprofile fapi2", 2, "duplicate option 'profile'; keep one"},
		{"profile \"{$MTLS_TEST_UNSET}\"", 1, "profile is empty; give it a value or remove the line"},
		{"signing_algorithm RS256\nprofile fapi2", 3, "signing_algorithm: profile fapi2: signing algorithm 'RS256' is not allowed; use signing_algorithm ES256, PS256 or EdDSA, with a matching key"},
		{"resource a {\nscopes x\n}\nresource b {\nscopes y x\n}", 6, "scope 'x' belongs to the resources 'a' and 'b'; remove it from one"},
	})
}

// TestUnknownWords checks that unknown options are errors in every block, because
// a setting that an operator relies on must not be ignored.
func TestUnknownWords(t *testing.T) {
	for around, list := range map[string]string{
		aroundRealm:         "mtls option 'nonsense'; use one of certificate_expiring, client, clients_from, ",
		aroundClient:        "client option 'nonsense'; use one of certificate, claim, default_scopes, ",
		aroundIssuer:        "issuer option 'nonsense'; use one of announce_for, audience, ",
		aroundRevocation:    "revocation option 'nonsense'; use one of crl, deny, ",
		aroundForwarded:     "forwarded_certificate option 'nonsense'; use one of from, header, peer_key, at ",
		aroundHandler:       "subdirective 'nonsense'; use one of allow, forward_certificate, forward_token, ",
		aroundCertificate:   "forward_certificate option 'nonsense'; the only one is header, at ",
		aroundGatewayToken:  "forward_token option 'nonsense'; use one of audience, lifetime, scopes, at ",
		aroundBearer:        "subdirective 'nonsense'; use one of audience, header_up, ",
		aroundTrusted:       "trust_issuer option 'nonsense'; use one of algorithms, allow_unbound, ",
		aroundIssuerHandler: "subdirective 'nonsense'; the only one is realm, at ",
	} {
		checkBadBlocks(t, around, []badBlock{{"nonsense a", 0, "unrecognized " + list}})
	}
	for around, words := range map[string]map[string]string{
		aroundRealm: {
			"crl a.crl":       "mtls option 'crl'; it belongs in revocation",
			"audience a":      "mtls option 'audience'; it belongs in issuer, forward_token, mtls_bearer or trust_issuer",
			"id_prefix a":     "mtls option 'id_prefix'; it belongs in trust_issuer",
			"peer_key SHA256": "mtls option 'peer_key'; it belongs in forwarded_certificate",
		},
		aroundClient:     {"trust_pool file a.pem": "client option 'trust_pool'; it belongs in mtls, fetch or trust_issuer"},
		aroundIssuer:     {"subject CN=a": "issuer option 'subject'; it belongs in client"},
		aroundRevocation: {"trust_pool file a.pem": "revocation option 'trust_pool'; it belongs in mtls, fetch or trust_issuer"},
		aroundHandler:    {"scopes a": "subdirective 'scopes'; it belongs in client, resource or forward_token"},
		aroundBearer:     {"allow a": "subdirective 'allow'; it belongs in mtls_auth"},
	} {
		for line, problem := range words {
			checkBadBlocks(t, around, []badBlock{{line, 1, "unrecognized " + problem}})
		}
	}
	nearest := func(around, kind string, words map[string]string) {
		var tests []badBlock
		for line, nearest := range words {
			word, _, _ := strings.Cut(line, " ")
			tests = append(tests, badBlock{line, 1, fmt.Sprintf("unrecognized %s '%s'; did you mean '%s'?", kind, word, nearest)})
		}
		checkBadBlocks(t, around, tests)
	}
	nearest(aroundRealm, "mtls option", map[string]string{
		"Issuer https://a.example": "issuer", "clients a": "client", "clientz a": "client", "client_from file a": "clients_from", "trustpool file a": "trust_pool",
		"trust-pool file a": "trust_pool", "revocations {\n}": "revocation", "forward_certificate nginx": "forwarded_certificate", "refresh 1h": "trust_pool_refresh",
	})
	nearest(aroundClient, "client option", map[string]string{
		"subjekt CN=a": "subject", "subjet CN=a": "subject", "sbuject CN=a": "subject", "jwks_uri https://a.example/jwks": "jwks", "scope a": "scopes",
		"lifetime 1h": "token_lifetime", "dns a.example": "san_dns", "Thumbprint SHA256": "thumbprint", "publickey SHA256": "public_key", "issuedby SHA256": "issued_by",
		"require-chain": "require_chain", "disable": "disabled", "claims a b": "claim", "default_scope a": "default_scopes",
	})
	nearest(aroundIssuer, "issuer option", map[string]string{"lifetime 1h": "token_lifetime", "resources a": "resource", "alias https://a.example": "mtls_alias", "signingkey a": "signing_key"})
	nearest(aroundRevocation, "revocation option", map[string]string{"crls a": "crl", "onunavailable allow": "on_unavailable"})
	nearest(aroundForwarded, "forwarded_certificate option", map[string]string{"From 10.0.0.1": "from", "peerkey SHA256": "peer_key", "headers a": "header"})
	nearest(aroundHandler, "subdirective", map[string]string{"alow a": "allow", "scope a": "require_scope", "headerup a b": "header_up", "report-only": "report_only", "optionnal": "optional"})
	nearest(aroundBearer, "subdirective", map[string]string{"audiences a": "audience", "issuer https://a.example": "trust_issuer"})
	nearest(aroundTrusted, "trust_issuer option", map[string]string{"algorithm ES256": "algorithms", "jwks https://a.example": "jwks_uri", "prefix a/": "id_prefix"})
	for _, directive := range []string{"mtls_statistics"} {
		_, _, err := adaptText("Caddyfile", strings.Replace(aroundSite, "BLOCK", directive, 1))
		testtool.WantError(t, err, "Caddyfile:8: unrecognized directive: "+directive)
	}
}
