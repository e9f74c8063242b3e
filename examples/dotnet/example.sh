# Sourced by examples/run. The programs take their settings from appsettings.json, the
# environment (`Mtls__Authority`, …) or their arguments, as .NET programs do; here they
# get them from the environment that all languages share.
title=.NET
library='Duende.IdentityModel 8.1'
programs='smallest client api-headers api-token api-mtls'
client_files='client/Mtls.cs client/Program.cs'
callers=service
certificate=pkcs12
errors=exceptions

missing() {
	if ! command -v dotnet >/dev/null; then
		echo 'dotnet is not installed'
	elif ! dotnet --list-sdks | grep -qE '^[1-9][0-9]+\.'; then
		echo 'the SDK of .NET 10 or later is not installed'
	fi
}

prepare() {
	local project
	export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1
	for project in console client api-headers api-token api-mtls api-certificate; do
		dotnet build "$project" --configuration Release --output "$BUILD/$project" --verbosity quiet || return
	done
}

run() {
	export Mtls__Authority=${ISSUER:-} Mtls__ClientId=${CLIENT_ID:-} Mtls__Scope=${SCOPE:-} Mtls__Certificate=${PKCS12:-} Mtls__Password=${PASSWORD:-}
	export Api__BaseAddress=${API:-} Urls=http://${LISTEN:-}
	# ISSUER and AUDIENCE are read as they are, because .NET ignores case in names
	export TokenType=${TOKEN_TYPE:-at+jwt}
	case $1 in
	# client.cs is smaller, but sends no intermediate CA; the first line is about the token
	smallest) dotnet "$BUILD/console/console.dll" "$ISSUER" "$CLIENT_ID" "$PKCS12" "$PASSWORD" "$API" | tail -n +2 ;;
	client)
		if [ -z "${LISTEN:-}" ]; then
			run smallest
			return
		fi
		exec dotnet "$BUILD/client/client.dll" --contentRoot "$BUILD/client"
		;;
	api-mtls)
		export Urls=https://$LISTEN Kestrel__Certificates__Default__Path=$TLS_CERTIFICATE Kestrel__Certificates__Default__KeyPath=$TLS_KEY
		exec dotnet "$BUILD/api-mtls/api-mtls.dll"
		;;
	*) exec dotnet "$BUILD/$1/$1.dll" ;;
	esac
}
