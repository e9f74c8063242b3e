# shellcheck shell=bash
# The keeping clients of all languages at the same time, under load, while certificates
# and the signing key are replaced. Sourced by examples/run.
# shellcheck disable=SC2154 # the files share variables

callers=20
load_seconds=${LOAD_SECONDS:-30}
# how often the signing key is retired. A client that is about to renew its token notices
# nothing of the first time.
retirements=${RETIREMENTS:-1}
# a token lives for 10 s, or 9 by its expires_in, and is renewed when 70 % of that are over
renewed_every=6

# keep_all <language>...
keep_all() {
	local language begin clients=()
	for language; do
		if has "$language" client; then
			clients+=("$language")
		fi
	done
	[ ${#clients[@]} != 0 ] || return 0
	echo "clients under load, ${load_seconds} s: ${clients[*]}"
	shorten_tokens
	begin=$SECONDS
	log_end log_start
	start_services "${clients[@]}"
	[ ${#kept[@]} != 0 ] || return 0
	start_load "${kept[@]}"
	change_certificates "${kept[@]}"
	until [ $((SECONDS - begin)) -ge "$load_seconds" ]; do pause 0.2; done
	: >"$work/stop"
	join "${loads[@]}"
	kept_seconds=$((SECONDS - begin))
	# Caddy has written its log when it has ended
	stop "$caddy"
	tail -c "+$log_start" "$work/caddy.log" >"$work/load.log"
	for language in "${kept[@]}"; do
		check_kept "$language"
		check_service_without_issuer "$language"
	done
	stop "${services[@]}"
}

# start_services <language>... starts the clients, and sets $kept to those that run.
start_services() {
	local language
	kept=() services=()
	declare -gA service_port
	for language; do
		if [ "$(about "$language" callers)" = service ]; then
			free_ports port
			service_port[$language]=$port
			start program "$language" client "LISTEN=127.0.0.1:$port" >"$work/$language/service.log" 2>&1 </dev/null
			services+=("$started")
		fi
	done
	for language; do
		if [ -z "${service_port[$language]-}" ] || until_true 90 listening "${service_port[$language]}"; then
			kept+=("$language")
		else
			failed "$language" client 'the client as a service does not listen' "$work/$language/service.log"
		fi
	done
}

# start_load <language>... starts the callers, which end when there is a file $work/stop.
start_load() {
	local language caller
	loads=()
	for language; do
		for ((caller = 0; caller < callers; caller++)); do
			start call_often "$language"
			loads+=("$started")
		done
	done
}

call_often() {
	local calls=0
	pause "0.$((RANDOM % 900 + 100))" # so that not all call at once
	until [ -e "$work/stop" ]; do
		if [ -n "${service_port[$1]-}" ]; then
			http "${service_port[$1]}" /
			pause 0.25
		else
			call_command "$1"
			pause 2 # because each call is several processes
		fi
		calls=$((calls + 1))
		if [[ $status != 200 || $body != *"hello partner-$1"* ]]; then
			printf 'second %s: %s %s\n' "$SECONDS" "$status" "${body:0:300}" >>"$work/$1/failed-calls"
		fi
	done
	echo "$calls" >>"$work/$1/calls"
}

# call_command <language> runs the client once, and sets $status and $body as http does.
call_command() {
	if body=$(program "$1" client 2>>"$work/$1/service.log" </dev/null); then
		status=200
	else
		status="exit status $?"
	fi
}

# change_certificates <language>... replaces each client's certificate, breaks it, retires
# the signing key, and replaces the certificate again.
change_certificates() {
	local language file n c=$certificates
	pause 5
	log_end replaced_at
	# in place and with a moment in between, as careless tools do
	for language; do cat "$c/partner-$language.next.key" >"$c/partner-$language.key"; done
	pause 0.3
	for language; do
		for file in pem p12; do cat "$c/partner-$language.next.$file" >"$c/partner-$language.$file"; done
	done
	in_use next "$@"
	for language; do
		for file in key pem p12; do
			head -c 150 "$c/partner-$language.last.$file" >"$c/broken" && cat "$c/broken" >"$c/partner-$language.$file"
		done
	done
	for ((n = 0; n < retirements; n++)); do
		pause 4
		echo "  second $SECONDS: the signing key is retired" >>"$work/changes"
		"$CADDY" mtls keys rotate --retire now --address "$ADMIN" >>"$work/changes" 2>&1 || failed "$1" client 'keys rotate failed' "$work/changes"
	done
	pause 4
	log_end replaced_at
	for language; do
		for file in key pem p12; do mv "$c/partner-$language.last.$file" "$c/partner-$language.$file"; done
	done
	in_use last "$@"
}

# log_end <name> sets the variable to where the next line of Caddy's log begins.
log_end() { printf -v "$1" %s "$(($(wc -c <"$work/caddy.log") + 1))"; }

# in_use <name> <language>... waits until the clients use the certificate of that name.
in_use() {
	local language serial
	for language in "${@:2}"; do
		serial=$(openssl x509 -in "$certificates/partner-$language.pem" -noout -serial)
		until_true "$load_seconds" seen "$((16#${serial#*=}))" || failed "$language" client "its certificate was replaced, but the client does not use the new one ($1)" "$work/$language/service.log"
	done
}

# seen <serial> reports whether the API has admitted the certificate. grep reads to the
# end, because a pipe that is closed early counts as a failure.
seen() {
	tail -c "+$replaced_at" "$work/caddy.log" | grep "\"client_serial\":\"$1\"" | grep "\"host\":\"localhost:$api_port\"" | grep '"status":200' >/dev/null
}

# check_kept <language> checks what its callers and Caddy have seen.
check_kept() {
	local calls=0 line tokens allowed unauthorized
	while read -r line; do calls=$((calls + line)); done <"$work/$1/calls"
	tokens=$(requests "$1" "$alias_port" | wc -l)
	unauthorized=$(requests "$1" "$api_port" | grep -c '"status":401')
	# one at first and one each renewal, one for each certificate, one for each retired key
	allowed=$((1 + kept_seconds / renewed_every + 2 + retirements))
	echo "  $1: $calls calls, $tokens token requests of at most $allowed, $unauthorized times 401 at the API"
	[ ! -s "$work/$1/failed-calls" ] || failed "$1" client "$(wc -l <"$work/$1/failed-calls") of $calls calls failed" "$work/$1/failed-calls" "$work/$1/service.log"
	[ "$calls" -ge "$callers" ] || failed "$1" client "only $calls calls in $kept_seconds s" "$work/$1/service.log"
	[ "$tokens" -le "$allowed" ] || failed "$1" client "$tokens token requests in $kept_seconds s, want at most $allowed" "$work/$1/service.log"
	# the calls that are on their way when the key is retired, and a few of the next
	[ "$unauthorized" -le $((2 * callers)) ] || failed "$1" client "$unauthorized times 401 at the API, want at most $((2 * callers))" "$work/$1/service.log"
	! grep -q -e eyJ -e changeit -e -----BEGIN "$work/$1/service.log" || failed "$1" client 'a secret in the log' "$work/$1/service.log"
}

# requests <language> <port> prints the log lines of the requests of its client.
requests() { grep "\"client_common_name\":\"partner-$1\"" "$work/load.log" | grep "\"host\":\"localhost:$2\""; }

# check_service_without_issuer <language> checks the answer when Caddy is not there.
check_service_without_issuer() {
	[ -n "${service_port[$1]-}" ] && [ "$(about "$1" errors)" != exceptions ] || return 0
	http "${service_port[$1]}" /
	# without the lines of a chunked body that are no text
	grep -vE $'^[0-9a-fA-F]*\r?$' <<<"$body" >"$work/$1/response"
	if [ "$status" != 502 ] || [ "$(grep -c '; ' "$work/$1/response")" != 1 ] || [ "$(wc -l <"$work/$1/response")" != 1 ]; then
		failed "$1" client "without an issuer and API, the client as a service answers $status, want 502 and a line 'cause; remedy'" "$work/$1/response" "$work/$1/service.log"
	fi
}
