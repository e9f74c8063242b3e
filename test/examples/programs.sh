# shellcheck shell=bash
# The checks of examples/run that run each program once. Sourced by examples/run.

prepare_language() {
	local begin=$SECONDS
	mkdir -p "$work/build/$1" "$work/$1"
	if ! in_language "$1" prepare >"$work/$1/prepare" 2>&1; then
		failed "$1" prepare "$work/$1/prepare"
		return 1
	fi
	echo $((SECONDS - begin)) >"$work/$1/seconds"
}

has() { [[ " $(about "$1" programs) " == *" $2 "* ]]; }

check_language() {
	local begin=$SECONDS
	local program
	echo "$1"
	for program in smallest client; do
		if has "$1" "$program"; then
			check_client "$1" "$program"
		fi
	done
	echo $((SECONDS - begin + $(<"$work/$1/seconds"))) >"$work/$1/seconds"
}

# once <name> <language> <program> [<name>=<value>]... runs a program to its end, and sets
# $exit, $out and $err.
once() {
	out=$work/$2/$1.out err=$work/$2/$1.err
	start program "${@:2}" >"$out" 2>"$err" </dev/null
	if finish "$started" 60; then
		wait "$started" 2>/dev/null
		exit=$?
	else
		stop "$started"
		exit=timeout
	fi
}

check_client() {
	once "$2" "$1" "$2"
	if [ "$exit" != 0 ] || [ "$(<"$out")" != "hello partner-$1" ]; then
		failed "$1" "$2: exit status $exit, want 0 and 'hello partner-$1'" "$out" "$err"
	fi
}

wait_for_slow() { :; }

print_table() {
	local language
	printf '%-10s %-7s %-7s %5s %8s\n' language client APIs lines seconds
	for language; do
		printf '%-10s %-7s %-7s %5s %8s\n' "$language" '' '' \
			"$(in_language "$language" eval 'cat $client_files | wc -l')" "$(<"$work/$language/seconds")"
	done
}
