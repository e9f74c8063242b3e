# shellcheck shell=bash disable=SC2034,SC2209 # examples/run reads the variables
title=curl
library='curl and sh'
programs='smallest client'
client_files='client'
callers=command
certificate=pem
missing() {
	local command
	for command in curl flock; do
		command -v "$command" >/dev/null || echo "$command is not installed"
	done
}
prepare() { :; }
run() {
	export XDG_RUNTIME_DIR=$BUILD # for the token of the client
	exec "./$1"
}
