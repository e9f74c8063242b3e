# shellcheck shell=bash disable=SC2034 # examples/run reads the variables
title=Java
library='Spring Boot 4.1'
programs='smallest client api-headers api-token api-mtls'
client_files='client/src/main/java/com/example/ClientApplication.java client/src/main/java/com/example/MtlsRestClient.java client/src/main/java/com/example/AccessTokenInterceptor.java client/src/main/java/com/example/TokenEndpoint.java client/src/main/java/com/example/Token.java client/src/main/java/com/example/MtlsException.java client/src/main/java/com/example/MtlsProperties.java'
callers=service
certificate=pkcs12

missing() {
	if ! command -v javac >/dev/null; then
		echo 'no JDK is installed'
	elif ! javac -version 2>&1 | grep -qE '^javac (1[7-9]|[2-9][0-9])'; then
		echo 'the JDK is older than 17'
	elif ! command -v mvn >/dev/null; then
		echo 'mvn is not installed'
	fi
}

# A later run finds the libraries where Maven keeps them.
prepare() {
	mvn -q -B -o package -Dmaven.test.skip=true >/dev/null 2>&1 || mvn -q -B package -Dmaven.test.skip=true
}

run() {
	# a JVM starts sooner so
	local java=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC)
	case $1 in
	smallest) exec "${java[@]}" Smallest.java ;;
	*) exec "${java[@]}" -jar "$1/target/$1.jar" ;;
	esac
}
