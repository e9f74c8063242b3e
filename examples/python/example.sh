# shellcheck shell=bash disable=SC2034 # examples/run reads the variables
title=Python
library='Authlib and httpx2'
programs='smallest client api-headers api-token api-mtls'
client_files='mtls.py mtls_identity.py client.py'
callers=service
certificate=pem

missing() {
	if ! command -v python3 >/dev/null; then
		echo 'python3 is not installed'
	elif ! python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
		echo "$(python3 --version) is older than 3.11 or has no venv"
	fi
}

prepare() {
	cmp -s requirements.txt .venv/installed-from && return
	python3 -m venv --clear .venv &&
		.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt &&
		cp requirements.txt .venv/installed-from
}

run() {
	local gunicorn=(.venv/bin/gunicorn --log-level warning --threads 8 --bind "${LISTEN-}")
	case $1 in
	smallest | client) exec .venv/bin/python "$1.py" ;;
	api-headers) exec "${gunicorn[@]}" api_headers:app ;;
	api-token) exec "${gunicorn[@]}" api_token:app ;;
	api-mtls)
		mkdir -p "$BUILD"
		# sensor-7 has a self-signed certificate
		cat "$CERTIFICATES/clients-ca.pem" "$CERTIFICATES/sensor-7.pem" >"$BUILD/clients.pem"
		exec "${gunicorn[@]}" --certfile "$TLS_CERTIFICATE" --keyfile "$TLS_KEY" --ca-certs "$BUILD/clients.pem" --cert-reqs 1 api_mtls:app
		;;
	esac
}
