# shellcheck shell=bash
# Tokens, made with openssl. Caddy's configuration of the tests publishes our key among
# the issuer's, so APIs see tokens that differ from good ones in one thing. Sourced by
# examples/run.
# shellcheck disable=SC2154,SC2034 # the files share variables

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# point prints half of the public key: the last 64 octets of its DER are x and y.
point() { openssl ec -pubin -in "$certificates/forger.pem" -outform der 2>/dev/null | tail -c 64 | "$1" -c 32 | base64url; }

make_forger() {
	openssl ecparam -name prime256v1 -genkey -noout -out "$certificates/forger.key" &&
		openssl ec -in "$certificates/forger.key" -pubout -out "$certificates/forger.pem" 2>/dev/null || exit
	# the kid is the thumbprint of the key (RFC 7638)
	forger_kid=$(printf '{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' "$(point head)" "$(point tail)" | openssl dgst -sha256 -binary | base64url)
}

# thumbprint <client> prints the x5t#S256 of its certificate.
thumbprint() { openssl x509 -in "$certificates/$1.pem" -outform der | openssl dgst -sha256 -binary | base64url; }

# forge <language> [<name>=<value>]... sets $token to an access token for its client, with
# other values for alg, typ, iss, aud, exp or cnf.
forge() {
	local alg=ES256 typ=at+jwt iss=$ISSUER aud=https://api.example.com now exp cnf signed signature
	now=$(date +%s)
	exp=$((now + 600))
	cnf="{\"x5t#S256\":\"$(thumbprint "partner-$1")\"}"
	[ $# = 1 ] || local "${@:2}"
	signed=$(printf '{"alg":"%s","typ":"%s","kid":"%s"}' "$alg" "$typ" "$forger_kid" | base64url).$(
		printf '{"iss":"%s","sub":"%s","client_id":"%s","aud":"%s","iat":%s,"exp":%s,"jti":"%s","scope":"invoices.read","cnf":%s}' \
			"$iss" "partner-$1" "partner-$1" "$aud" "$((exp - 600))" "$exp" "$RANDOM" "$cnf" | base64url
	)
	case $alg in
	none) signature= ;;
	# the attack on those who take the public key for the secret that alg asks for
	HS256) signature=$(printf %s "$signed" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(od -An -v -t x1 "$certificates/forger.pem" | tr -d ' \n')" -binary | base64url) ;;
	*) signature=$(printf %s "$signed" | openssl dgst -sha256 -sign "$certificates/forger.key" | raw_signature | base64url) ;;
	esac
	token=$signed.$signature
}

# raw_signature turns the DER of an ECDSA signature into r and s (RFC 7518 §3.4).
raw_signature() {
	local line hex
	openssl asn1parse -inform der | sed -n 's/.*INTEGER *:0*//p' | while read -r line; do
		printf -v hex '%64s' "$line"
		hex=${hex// /0}
		# shellcheck disable=SC2059,SC2001 # the escapes are the octets
		printf "$(sed 's/../\\x&/g' <<<"$hex")"
	done
}
