# shellcheck shell=bash
# The checks of a language's APIs. Sourced by examples/run.
# shellcheck disable=SC2154 # the files share variables

# start_apis <language> starts those that the language has, and sets $apis to their pids.
start_apis() {
	apis=()
	if has "$1" api-headers; then
		start_api "$1" api-headers api-headers "LISTEN=$HEADERS_UPSTREAM"
	fi
	if has "$1" api-token; then
		start_api "$1" api-token api-token "LISTEN=$TOKEN_UPSTREAM"
		start_api "$1" api-token.gateway api-token "LISTEN=$GATEWAY_UPSTREAM" TOKEN_TYPE=gateway+jwt AUDIENCE=urn:example:invoices
	fi
	if has "$1" api-mtls; then
		start_api "$1" api-mtls api-mtls "LISTEN=127.0.0.1:$mtls_port"
	fi
}

# start_api <language> <name of the log> <program> <setting>...
start_api() {
	start program "$1" "${@:3}" >"$work/$1/$2.log" 2>&1 </dev/null
	apis+=("$started")
}

# check_apis <language> checks what start_apis has started.
check_apis() {
	local api
	for api in headers token gateway mtls; do
		if has "$1" "api-${api/gateway/token}"; then
			check_api "$1" "$api"
		fi
	done
}

check_api() {
	local log=$work/$1/api-${2/gateway/token.gateway}.log port
	case $2 in
	headers) port=$headers_upstream ;;
	token) port=$token_upstream ;;
	gateway) port=$gateway_upstream ;;
	mtls) port=$mtls_port ;;
	esac
	if ! until_true 90 listening "$port"; then
		failed "$1" APIs "api-$2 does not listen" "$log"
		return
	fi
	"check_$2" "$1"
}

# answers <language> <API> <what> <status> [<text>] checks $status and $body of the last
# response.
answers() {
	if [ "$status" != "$4" ] || { [ -n "${5-}" ] && [[ $body != *"$5"* ]]; }; then
		printf '%s\n\n%s\n' "$headers" "$body" >"$work/$1/response"
		failed "$1" APIs "api-$2, $3: got $status, want $4 ${5-}" "$work/$1/response" "$work/$1/api-${2/gateway/token.gateway}.log"
	fi
}

# challenged <language> <API> <what> checks that the last response is 401 and asks for a
# token.
challenged() {
	answers "$1" "$2" "$3" 401
	if [[ $status == 401 && ${headers,,} != *$'\n'www-authenticate:*bearer* ]]; then
		failed "$1" APIs "api-$2, $3: the answer has no WWW-Authenticate: Bearer"
	fi
}

check_headers() {
	local id=partner-$1
	https "$headers_port" "$id" /
	answers "$1" headers 'its client' 200 "hello $id"
	https "$headers_port" "$id" /invoices
	answers "$1" headers 'its client, /invoices' 200 "invoices of $id"
	https "$headers_port" sensor-7 /invoices
	answers "$1" headers 'a client without the scope' 403
	for name in X-Client-ID x_client_id X-Client.ID; do
		https "$headers_port" sensor-7 / "$name: $id"
		answers "$1" headers "a forged $name" 200 'hello sensor-7'
	done
	https "$headers_port" sensor-7 /invoices 'X-Client-Scope: invoices.read' "X-Client-ID: $id"
	answers "$1" headers 'a forged scope' 403
	https "$headers_port" '' / "X-Client-ID: $id"
	answers "$1" headers 'no certificate' 401
	# what reaches the API only if somebody goes past Caddy, or forgets mtls_auth
	http "$headers_upstream" /
	answers "$1" headers 'no headers' 401
	http "$headers_upstream" / 'X-Client-ID:'
	answers "$1" headers 'an empty X-Client-ID' 401
	http "$headers_upstream" / "X-Client-ID: $id" 'X-Client-ID: sensor-7'
	answers "$1" headers 'two X-Client-ID' 401
}

# refuses_forged <language> <API> <request> <client> <port> <setting>... checks that the
# API takes a token that we sign with these settings, and none that differs.
refuses_forged() {
	local wrong ask=("${@:3:3}")
	forge "$1" "${@:6}"
	"${ask[@]}"
	answers "$1" "$2" 'a token like those of the issuer' 200 "hello partner-$1"
	for wrong in typ=JWT "typ=$([ "$2" = gateway ] && echo at+jwt || echo gateway+jwt)" aud=https://other.example.com \
		iss=https://other.example.com "exp=$(($(date +%s) - 3600))" alg=none alg=HS256; do
		forge "$1" "${@:6}" "$wrong"
		"${ask[@]}"
		challenged "$1" "$2" "a token with $wrong"
	done
	forge "$1" "${@:6}"
	token=${token%.*}.$(openssl rand 64 | base64url)
	"${ask[@]}"
	challenged "$1" "$2" 'a token with the signature of nobody'
}

# over_http and over_tls send $token.
over_http() { http "$2" / "Authorization: Bearer $token"; }
over_tls() { https "$2" "$1" / "Authorization: Bearer $token"; }

check_token() {
	local id=partner-$1
	get_token "$id"
	https "$token_port" "$id" / "Authorization: Bearer $token"
	answers "$1" token 'its client' 200 "hello $id"
	https "$token_port" "$id" /invoices "Authorization: Bearer $token"
	answers "$1" token 'its client, /invoices' 200 "invoices of $id"
	get_token sensor-7
	https "$token_port" sensor-7 /invoices "Authorization: Bearer $token"
	answers "$1" token 'a client without the scope' 403
	http "$token_upstream" /
	challenged "$1" token 'no token'
	get_token "$id" other.read
	over_http '' "$token_upstream"
	challenged "$1" token 'a token for another audience'
	refuses_forged "$1" token over_http '' "$token_upstream" typ=at+jwt
}

check_gateway() {
	local id=partner-$1
	https "$gateway_port" "$id" /
	answers "$1" gateway 'its client' 200 "hello $id"
	https "$gateway_port" "$id" /invoices
	answers "$1" gateway 'its client, /invoices' 200 "invoices of $id"
	https "$gateway_port" sensor-7 /invoices
	answers "$1" gateway 'a client without the scope' 403
	http "$gateway_upstream" /
	challenged "$1" gateway 'no token'
	get_token "$id"
	over_http '' "$gateway_upstream"
	challenged "$1" gateway 'an access token'
	refuses_forged "$1" gateway over_http '' "$gateway_upstream" typ=gateway+jwt aud=urn:example:invoices
}

check_mtls() {
	local id=partner-$1
	get_token "$id"
	over_tls "$id" "$mtls_port"
	answers "$1" mtls 'its client' 200 "hello $id"
	https "$mtls_port" "$id" /invoices "Authorization: Bearer $token"
	answers "$1" mtls 'its client, /invoices' 200 "invoices of $id"
	over_tls sensor-7 "$mtls_port"
	challenged "$1" mtls "another's certificate"
	over_tls '' "$mtls_port"
	challenged "$1" mtls 'no certificate'
	https "$mtls_port" "$id" /
	challenged "$1" mtls 'no token'
	get_token sensor-7
	https "$mtls_port" sensor-7 /invoices "Authorization: Bearer $token"
	answers "$1" mtls 'a client without the scope' 403
	get_token "$id" other.read
	over_tls "$id" "$mtls_port"
	challenged "$1" mtls 'a token for another audience'
	for cnf in '{}' null "{\"x5t#S256\":\"$(thumbprint sensor-7)\"}" '{"x5t#S256":""}'; do
		forge "$1" cnf="$cnf"
		over_tls "$id" "$mtls_port"
		challenged "$1" mtls "a token with cnf $cnf"
	done
	refuses_forged "$1" mtls over_tls "$id" "$mtls_port" typ=at+jwt
}

# check_new_key <language> retires the signing key, and checks that the APIs read the keys
# again for a token of the next one.
check_new_key() {
	has "$1" api-token || has "$1" api-mtls || return 0
	"$CADDY" mtls keys rotate --retire now --address "$ADMIN" >/dev/null || return
	get_token "partner-$1"
	if has "$1" api-token; then
		accepts "$1" token over_http '' "$token_upstream"
	fi
	if has "$1" api-mtls; then
		accepts "$1" mtls over_tls "partner-$1" "$mtls_port"
	fi
}

accepts() {
	until_true 60 accepted "${@:3}"
	answers "$1" "$2" 'a token of a new key' 200 "hello partner-$1"
}

accepted() {
	"$@"
	[ "$status" = 200 ]
}
