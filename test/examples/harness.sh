# shellcheck shell=bash
# What examples/run is made of: its folder, Caddy, processes, and requests with bash and
# openssl. Sourced by examples/run.
# shellcheck disable=SC2154,SC2034 # the files share variables

work=$(mktemp -d) || exit 1
certificates=$work/certificates
# the file in which failures are noted, also by processes in the background
: >"$work/failed"
# so that what others leave behind goes too, such as a build that is interrupted
mkdir "$work/tmp"
export TMPDIR=$work/tmp
# a file for each process group that start has begun and nobody has seen the end of
mkdir "$work/pids"
mkfifo "$work/never"
exec {never}<>"$work/never"

# cleanup ends all processes of this run and removes its files.
cleanup() {
	trap '' INT TERM
	signal_all TERM
	pause 0.3
	signal_all KILL
	wait 2>/dev/null
	rm -rf "$work"
}

signal_all() {
	local file
	for file in "$work"/pids/*; do
		kill "-$1" -- "-${file##*/}" 2>/dev/null
	done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# pause <seconds>
pause() { read -r -t "$1" -u "$never" _ || true; }

# start <command>... runs a command in the background, in a process group of its own, and
# sets $started to its pid.
start() {
	set -m
	"$@" &
	started=$!
	set +m
	: >"$work/pids/$started"
}

# stop <pid>... ends process groups that start has begun.
stop() {
	local pid
	for pid; do
		kill -- "-$pid" 2>/dev/null
	done
	for pid; do
		finish "$pid" 5 || kill -KILL -- "-$pid" 2>/dev/null
	done
	join "$@"
}

# join <pid>... waits until processes that start has begun have ended, and returns the
# exit status of the last.
join() {
	local pid status=0
	for pid; do
		wait "$pid" 2>/dev/null
		status=$?
		rm -f "$work/pids/$pid"
	done
	return "$status"
}

# finish <pid> <seconds> reports whether a process ends within that time.
finish() { until_true "$2" eval "! kill -0 $1 2>/dev/null"; }

# until_true <seconds> <command>... repeats the command until it succeeds.
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -le "$end" ] || return 1
		pause 0.05
	done
	return 0
}

# failed <language> client|APIs <what> [<file>...] notes a failure, and prints it with the
# end of the files, at once because others may print too.
failed() {
	local file text
	text=$(
		printf 'FAILED %s: %s\n' "$1" "$3"
		for file in "${@:4}"; do
			[ ! -s "$file" ] || { printf '  %s:\n' "${file##*/}" && tail -n 30 "$file" | cut -c 1-1000 | sed 's/^/    /'; }
		done
	)
	printf '%s\n' "$text"
	printf '%s %s %s\n' "$1" "$2" "$3" >>"$work/failed"
}

# in_language <language> <function of its example.sh> <argument>... runs a function of a
# language.
in_language() (
	BUILD=$work/build/$1
	cd "$examples/$1" || exit
	# shellcheck source=/dev/null
	. ./example.sh
	"${@:2}"
)

# about <language> <variable> prints a variable of its example.sh.
about() (
	cd "$examples/$1" || exit
	# shellcheck source=/dev/null
	. ./example.sh
	printf '%s' "${!2-}"
)

# program <language> <program> [<name>=<value>]... becomes the program of a language,
# with its environment. Use it in a process of its own.
program() {
	local setting
	# no proxy knows our ports, SSL_CERT_FILE is to count, and Java prints that it has options
	unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY CURL_CA_BUNDLE REQUESTS_CA_BUNDLE SSL_CERT_DIR JAVA_TOOL_OPTIONS
	set -a
	# shellcheck source=/dev/null
	. "$certificates/partner-$1.env"
	set +a
	for setting in ISSUER="$ISSUER" API="$API" "${@:3}"; do
		export "${setting?}"
	done
	BUILD=$work/build/$1
	cd "$examples/$1" || exit
	# shellcheck source=/dev/null
	. ./example.sh
	run "$2"
}

make_certificates() {
	"$root/examples/certificates" "$certificates" "${running[@]/#/partner-}" || exit
	openssl pkcs12 -export -nokeys -in "$certificates/sensor-7.pem" -passout pass:changeit -out "$certificates/without-key.p12" || exit
}

# start_odd_issuers starts a server that takes connections and says nothing, and writes
# metadata with a token endpoint that answers with HTML, and with one that is silent.
start_odd_issuers() {
	local name folder
	start silent_server
	until_true 60 listening "$silent_port" || exit
	https "$issuer_port" '' /.well-known/openid-configuration
	for name in html silent; do
		folder=$certificates/odd/$name/.well-known
		mkdir -p "$folder"
		sed -e "s#\"issuer\":\"$ISSUER\"#\"issuer\":\"$HTML/odd/$name\"#" -e "s#\"$ALIAS/connect/token\"#\"$HTML/$name\"#" <<<"$body" >"$folder/openid-configuration"
		cp "$folder/openid-configuration" "$folder/oauth-authorization-server"
	done
}

silent_server() {
	exec openssl s_server -quiet -accept "127.0.0.1:$silent_port" -cert "$certificates/server.pem" -key "$certificates/server.key" <"$work/never" >/dev/null 2>&1
}

# free_ports <name>... sets each variable to a port of the loopback interface on which
# nobody listens, and which no earlier call has found.
next_port=$((20000 + RANDOM % 10000))
free_ports() {
	local name
	for name; do
		while listening "$next_port"; do
			next_port=$((next_port + 1))
		done
		printf -v "$name" %s "$next_port"
		next_port=$((next_port + 1))
	done
}

# listening <port> reports whether somebody listens there.
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_caddy builds Caddy if there is none, and starts it with examples/Caddyfile and a
# few things that only tests need.
start_caddy() {
	local language attempt
	if [ -z "${CADDY:-}" ]; then
		command -v go >/dev/null || {
			echo 'go is not installed; set CADDY to a Caddy with the plugin' >&2
			exit 1
		}
		CADDY=$work/caddy
		start build_caddy
		join "$started" || exit
	fi
	make_forger
	for attempt in 1 2 3 4 5; do
		if try_caddy; then
			return
		fi
		# somebody was faster to take one of the ports
		grep -q 'address already in use' "$work/caddy.log" || break
		echo "attempt $attempt: a port is in use" >&2
	done
	cat "$work/caddy.log" >&2
	echo 'Caddy did not start' >&2
	exit 1
}

build_caddy() { cd "$root" && go build -o "$CADDY" ./cmd/caddy; }

try_caddy() {
	local name ports=(issuer alias api headers token gateway admin html)
	free_ports "${ports[@]/%/_port}" headers_upstream token_upstream gateway_upstream mtls_port closed_port silent_port
	export CERTIFICATES=$certificates ADMIN=127.0.0.1:$admin_port
	export ISSUER=https://localhost:$issuer_port ALIAS=https://localhost:$alias_port API=https://localhost:$api_port
	export HEADERS_API=https://localhost:$headers_port HEADERS_UPSTREAM=127.0.0.1:$headers_upstream
	export TOKEN_API=https://localhost:$token_port TOKEN_UPSTREAM=127.0.0.1:$token_upstream
	export GATEWAY_API=https://localhost:$gateway_port GATEWAY_UPSTREAM=127.0.0.1:$gateway_upstream
	export HTML=https://localhost:$html_port SILENT_PORT=$silent_port
	test_caddyfile 10m >"$work/Caddyfile"
	: >"$work/caddy.log"
	start run_caddy
	caddy=$started
	until_true 60 caddy_is_up && kill -0 "$caddy" 2>/dev/null && grep -q 'serving initial configuration' "$work/caddy.log"
}

run_caddy() {
	exec env XDG_DATA_HOME="$work/data" XDG_CONFIG_HOME="$work/config" "$CADDY" run --config "$work/Caddyfile" --adapter caddyfile >"$work/caddy.log" 2>&1
}

caddy_is_up() { ! kill -0 "$caddy" 2>/dev/null || grep -q 'serving initial configuration' "$work/caddy.log"; }

# shorten_tokens has tokens live as short as in examples/Caddyfile. Until then, none
# expires between two steps of a check, on a busy machine too.
shorten_tokens() {
	test_caddyfile 10s >"$work/Caddyfile"
	"$CADDY" reload --config "$work/Caddyfile" --adapter caddyfile --address "$ADMIN" >"$work/reload" 2>&1 || {
		cat "$work/reload" >&2
		echo 'Caddy did not reload' >&2
		exit 1
	}
}

# test_caddyfile <lifetime of tokens> prints examples/Caddyfile with that lifetime, clients
# for languages that it does not have, the key of the tokens that we sign ourselves, and a
# host that is no issuer.
# shellcheck disable=SC2016 # {$...} is the Caddyfile's
test_caddyfile() {
	local line language text
	text=$(<"$root/examples/Caddyfile")
	text=${text/token_lifetime 10s/token_lifetime $1}
	while IFS= read -r line; do
		printf '%s\n' "$line"
		case $line in
		*'trust_pool file '*)
			for language in "${running[@]}"; do
				[[ $text == *"import partner partner-$language"$'\n'* ]] || echo "import partner partner-$language"
			done
			;;
		*'issuer {$ISSUER} {') echo 'verify_key "{$CERTIFICATES}/forger.pem"' ;;
		esac
	done <<<"$text"
	cat <<'END'
{$HTML} {
	import tls
	handle /silent* {
		reverse_proxy 127.0.0.1:{$SILENT_PORT}
	}
	handle /odd/* {
		header Content-Type application/json
		root {$CERTIFICATES}
		file_server
	}
	handle {
		header Content-Type text/html
		respond "<html><body>The service is down for maintenance</body></html>"
	}
}
END
}

# http <port> <path> [<header>]... sends a GET request in plain HTTP, and sets $status
# and $body.
http() {
	local connection response=''
	status=none body=
	{ exec {connection}<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 0
	request "$1" GET "$2" '' "${@:3}" >&"$connection"
	IFS= read -r -d '' -t 60 -u "$connection" response
	exec {connection}>&-
	parse "$response"
}

# https <port> <certificate or ""> <path> [<header>]... does the same over TLS.
https() { tls "$1" "$2" "$(request "$1" GET "$3" '' "${@:4}" && echo .)"; }

# request <port> <method> <path> <body> <header>... prints a request.
request() {
	printf '%s %s HTTP/1.1\r\nHost: localhost:%s\r\nConnection: close\r\n' "$2" "$3" "$1"
	[ $# -le 4 ] || printf '%s\r\n' "${@:5}"
	[ -z "$4" ] || printf 'Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %s\r\n' "${#4}"
	printf '\r\n%s' "$4"
}

# tls <port> <certificate or ""> <request and a dot> sends a request over TLS.
tls() {
	local connection pid response='' identity=() request=$work/request.$BASHPID
	[ -z "$2" ] || identity=(-cert "$certificates/$2.pem" -key "$certificates/$2.key" -cert_chain "$certificates/intermediate.pem")
	printf %s "${3%.}" >"$request"
	exec {connection}< <(exec openssl s_client -quiet -connect "127.0.0.1:$1" -servername localhost -CAfile "$certificates/server-ca.pem" \
		-verify_return_error ${identity[@]+"${identity[@]}"} <"$request" 2>/dev/null)
	pid=$!
	IFS= read -r -d '' -t 60 -u "$connection" response
	kill "$pid" 2>/dev/null
	exec {connection}<&-
	parse "$response"
}

# parse <response> sets $status, $headers and $body.
parse() {
	status=none body='' headers=${1%%$'\r\n\r\n'*}
	[[ $1 == HTTP/1.?' '* ]] || return 0
	status=${1#* }
	status=${status:0:3}
	body=${1#*$'\r\n\r\n'}
}

# get_token <client> [<scope>] sets $token to an access token of Caddy's.
get_token() {
	local form="grant_type=client_credentials&client_id=$1${2:+&scope=$2}"
	tls "$alias_port" "$1" "$(request "$alias_port" POST /connect/token "$form" && echo .)"
	token=$(sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' <<<"$body")
}
