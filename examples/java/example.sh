title=Java
library='java.net.http'
programs='smallest'
client_files='Smallest.java'
callers=command
certificate=pkcs12

missing() {
	if ! command -v java >/dev/null; then
		echo 'java is not installed'
	elif ! java --version 2>/dev/null | head -n 1 | grep -qE ' (1[7-9]|[2-9][0-9])'; then
		echo "Java is older than 17"
	fi
}

prepare() { :; }

# The flags make a short-lived JVM start sooner. SSL_CERT_FILE is read by the programs themselves.
run() {
	local quick=(-XX:TieredStopAtLevel=1 -XX:+UseSerialGC)
	case $1 in
	smallest) exec java "${quick[@]}" Smallest.java ;;
	esac
}
