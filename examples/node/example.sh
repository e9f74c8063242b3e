# shellcheck shell=bash disable=SC2034 # examples/run reads the variables
title=Node.js
library='openid-client'
programs='smallest client api-headers api-token api-mtls'
client_files='mtls.mjs client.mjs'
callers=service
certificate=pem

missing() {
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
		echo 'node or npm is not installed'
	elif ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'; then
		echo "$(node --version) is older than 20.19"
	fi
}

prepare() {
	cmp -s package-lock.json node_modules/installed-from && return
	npm ci --no-audit --no-fund --loglevel=error &&
		cp package-lock.json node_modules/installed-from
}

run() { exec node "$1.mjs"; }
