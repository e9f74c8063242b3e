# shellcheck shell=bash disable=SC2034 # examples/run reads the variables
title=PHP
library='curl extension'
programs='smallest client api-headers api-token api-mtls'
client_files='client.php Mtls.php MtlsState.php MtlsIssuer.php'
callers=service
certificate=pem

# Debian has both outside of the PATH of users, and the version in PHP-FPM's name.
nginx=$(PATH=$PATH:/usr/sbin command -v nginx || true)
php_fpm=$(PATH=$PATH:/usr/sbin command -v php-fpm || compgen -G '/usr/sbin/php-fpm[0-9]*' | head -n 1 || true)
if [ -z "$nginx" ] || [ -z "$php_fpm" ]; then
	programs=${programs% api-mtls}
fi

missing() {
	if ! command -v php >/dev/null; then
		echo 'php is not installed'
	elif ! php -r 'exit((int) !(PHP_VERSION_ID >= 80100 && extension_loaded("curl") && extension_loaded("openssl")));'; then
		echo 'php is older than 8.1, or has no curl or openssl'
	fi
}

prepare() { mkdir -p "$BUILD/state" && chmod 700 "$BUILD/state"; }

run() {
	export STATE_DIRECTORY=$BUILD/state PHP_CLI_SERVER_WORKERS=4
	case $1 in
	smallest) exec php smallest.php ;;
	client) exec php ${LISTEN:+-S "$LISTEN"} client.php ;;
	api-mtls) serve_tls ;;
	*) exec php -S "$LISTEN" "$1.php" ;;
	esac
}

# serve_tls runs PHP-FPM and nginx in front of it.
serve_tls() {
	local folder file
	folder=$(mktemp -d "$BUILD/api-mtls.XXXXXX")
	for file in nginx.conf php-fpm.conf; do
		sed "s|FOLDER|$folder|; s|PROGRAMS|$PWD|; s|USER|$(id -un)|; s|LISTEN|$LISTEN|; s|TLS_CERTIFICATE|$TLS_CERTIFICATE|; s|TLS_KEY|$TLS_KEY|" "$file" >"$folder/$file"
	done
	# -R lets it run as root, if root runs the examples. It leaves our process group, so it
	# is ended here.
	"$php_fpm" -R -y "$folder/php-fpm.conf" &
	fpm=$!
	trap 'kill "$fpm"' EXIT
	trap 'exit 143' TERM
	"$nginx" -e stderr -c "$folder/nginx.conf" -g "user $(id -un) $(id -gn);" &
	wait $!
}
