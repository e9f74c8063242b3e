# shellcheck shell=bash disable=SC2034,SC2209 # examples/run reads the variables
title=curl
library='curl and sh'
programs='smallest client'
client_files='client'
callers=command
certificate=pem
missing() { command -v curl >/dev/null || echo 'curl is not installed'; }
prepare() { :; }
run() {
	export XDG_RUNTIME_DIR=$BUILD # for the token of the client
	exec "./$1"
}
