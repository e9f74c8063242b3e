# shellcheck shell=bash
# The checks of examples/run that run each client to its end: what it prints, and how it
# fails. Sourced by examples/run.
# shellcheck disable=SC2154 # the files share variables

prepare_language() {
	local begin=$SECONDS
	mkdir -p "$work/build/$1" "$work/$1"
	start in_language "$1" prepare >"$work/$1/prepare.log" 2>&1 </dev/null
	if ! join "$started"; then
		failed "$1" client 'prepare failed' "$work/$1/prepare.log"
		return 1
	fi
	took "$1" "$begin"
}

# took <language> <begin> adds the seconds since then to those of the language.
took() {
	local before=0
	[ ! -e "$work/$1/seconds" ] || before=$(<"$work/$1/seconds")
	echo $((before + SECONDS - $2)) >"$work/$1/seconds"
}

# has <language> <program>
has() { [[ " $(about "$1" programs) " == *" $2 "* ]]; }

# check_language <language> checks all programs, except for the client under load.
check_language() {
	local begin=$SECONDS program checks=()
	echo "$1: $(about "$1" programs)"
	start_apis "$1"
	for program in smallest client; do
		if has "$1" "$program"; then
			start check_client "$1" "$program"
			checks+=("$started")
		fi
	done
	check_apis "$1"
	join ${checks[@]+"${checks[@]}"}
	# not before, because smallest does not ask for a second token
	check_new_key "$1"
	stop ${apis[@]+"${apis[@]}"}
	took "$1" "$begin"
}

check_client() {
	once "$2" "$1" "$2"
	if [ "$exit" != 0 ] || [ "$(<"$out")" != "hello partner-$1" ]; then
		failed "$1" client "$2: exit status $exit, want 0 and 'hello partner-$1'" "$out" "$err"
	fi
}

# start_refusals <language> begins to check in the background what must fail, because
# these programs mostly start and wait.
refusals=()
start_refusals() {
	local program issuer
	if [ "$(about "$1" errors)" = exceptions ]; then
		echo "$1: its errors are not checked, because its programs end with the exception"
		return
	fi
	for program in smallest client; do
		if has "$1" "$program"; then
			start check_refusals "$1" "$program"
			refusals+=("$started")
			for issuer in "https://localhost:$silent_port" "$HTML/silent" "$HTML/odd/silent"; do
				start refuses "$1" "$program" "an issuer that never answers ($issuer)" '' "ISSUER=$issuer"
				refusals+=("$started")
			done
		fi
	done
}

join_refusals() { join ${refusals[@]+"${refusals[@]}"}; }

# once <name> <language> <program> [<setting>]... runs a program to its end, and sets
# $exit, $out and $err.
once() {
	out=$work/$2/$1.out err=$work/$2/$1.err
	start program "${@:2}" >"$out" 2>"$err" </dev/null
	if finish "$started" $((load_seconds * 3)); then
		join "$started"
		exit=$?
	else
		stop "$started"
		exit='none, it did not end'
	fi
}

check_refusals() {
	local c=$certificates
	refuses "$1" "$2" 'an expired certificate' error_id "$(files "partner-$1.expired")"
	refuses "$1" "$2" "another's certificate" error_id "$(files sensor-7)"
	refuses "$1" "$2" 'a token for another audience' error_id SCOPE=other.read
	refuses "$1" "$2" 'an issuer that is down' '' "ISSUER=https://localhost:$closed_port"
	refuses "$1" "$2" 'an issuer that answers with HTML' '' "ISSUER=$HTML"
	refuses "$1" "$2" 'a token endpoint that answers with HTML' '' "ISSUER=$HTML/odd/html"
	refuses "$1" "$2" 'a file that is missing' '' "$(files missing)"
	refuses "$1" "$2" 'an API that is not a URL' '' API=nothing
	refuses "$1" "$2" 'an API that is down' '' "API=https://localhost:$closed_port"
	refuses "$1" "$2" 'an API that does not speak TLS' '' "API=${API/https/http}"
	if [ "$(about "$1" certificate)" = pkcs12 ]; then
		refuses "$1" "$2" 'a certificate without a key' '' "PKCS12=$c/without-key.p12"
		refuses "$1" "$2" 'a wrong password' '' PASSWORD=not-the-password
	else
		refuses "$1" "$2" 'a certificate without a key' '' "KEY=$c/missing.key"
		refuses "$1" "$2" 'a certificate in place of the key' '' "KEY=$c/partner-$1.pem"
		refuses "$1" "$2" 'the key of another certificate' '' "KEY=$c/sensor-7.key"
	fi
}

# files <name> prints settings for the certificate of that name, in both formats.
files() { printf 'CERTIFICATE=%s.pem KEY=%s.key PKCS12=%s.p12' "$certificates/$1" "$certificates/$1" "$certificates/$1"; }

# refuses <language> <program> <what> error_id|'' <settings> runs a program that must end
# with status 1 and one line, which has the error id if a server gave one.
refuses() {
	local settings text wrong='' name=$2.${3//[^a-z]/-}
	read -r -a settings <<<"$5"
	once "$name" "$1" "$2" "${settings[@]}"
	text=$(<"$err")
	[ "$exit" = 1 ] || wrong+=", exit status $exit instead of 1"
	[ ! -s "$out" ] || wrong+=', something on the standard output'
	[ -n "$text" ] || wrong+=', no line on the standard error'
	[[ $text != *$'\n'* ]] || wrong+=', more than one line on the standard error'
	[[ -z $text || $text == *'; '* ]] || wrong+=", no '; remedy'"
	[[ $text != *eyJ* && $text != *-----BEGIN* && $text != *changeit* && $text != *not-the-password* ]] || wrong+=', a secret'
	[ -z "$4" ] || until_true 15 has_error_id "$text" || wrong+=', no error id'
	[ -z "$wrong" ] || failed "$1" client "$2 with $3: ${wrong#, }" "$out" "$err"
}

# has_error_id <text> reports whether it has the error id of a refusal that Caddy knows.
has_error_id() {
	local id
	while read -r id; do
		http "$admin_port" "/mtls/refusals/$id"
		[ "$status" != 200 ] || return 0
	done < <(tr -c 'a-z0-9' '\n' <<<"$1" | grep -x '.\{9\}')
	return 1
}

# result <language> client|APIs prints how it went.
result() {
	local program programs=0
	for program in $(about "$1" programs); do
		case $2.$program in
		client.api-* | APIs.smallest | APIs.client) ;;
		*) programs=$((programs + 1)) ;;
		esac
	done
	if grep -q "^$1 $2 " "$work/failed"; then
		echo FAILED
	elif [ "$programs" = 0 ]; then
		echo none
	elif [ "$2" = client ]; then
		echo passed
	else
		echo "$programs passed"
	fi
}

# lines <language> prints how long the client is.
lines() (
	cd "$examples/$1" || exit
	# shellcheck disable=SC2046 # a list
	sed -n '$=' $(about "$1" client_files)
)

print_table() {
	local language
	printf '\n%-10s %-28s %-8s %-9s %5s %8s\n' language library client APIs lines seconds
	for language; do
		printf '%-10s %-28s %-8s %-9s %5s %8s\n' "$language" "$(about "$language" library)" "$(result "$language" client)" \
			"$(result "$language" APIs)" "$(lines "$language")" "$(cat "$work/$language/seconds" 2>/dev/null)"
	done
}
