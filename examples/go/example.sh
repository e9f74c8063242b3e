# shellcheck shell=bash disable=SC2034 # examples/run reads the variables
title=Go
library='golang.org/x/oauth2'
programs='smallest client api-headers api-token api-mtls'
client_files='client/main.go client/mtls.go client/certificate.go client/token.go client/issuer.go'
callers=service
certificate=pem

missing() {
	if ! command -v go >/dev/null; then
		echo 'go is not installed'
	fi
}

prepare() {
	# both APIs are to be copied alone, so they have their own copies
	cmp api-token/token.go api-mtls/token.go &&
		cmp api-token/keys.go api-mtls/keys.go &&
		go build -o "$BUILD/" ./...
}

run() { exec "$BUILD/$1"; }
