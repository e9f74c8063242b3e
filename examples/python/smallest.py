"""The smallest client: Python alone.

It gets an access token with its certificate, and calls the API with both, because the token is bound to it.
"""

import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress

ISSUER, CLIENT_ID, SCOPE, CERTIFICATE, KEY, API = (
    os.environ.get(name, "") for name in ("ISSUER", "CLIENT_ID", "SCOPE", "CERTIFICATE", "KEY", "API")
)


def main():
    context = ssl.create_default_context()
    try:
        # The intermediate CAs, which follow the certificate in its file, are sent too.
        # Without a password, that of an encrypted key would be asked for at the terminal.
        context.load_cert_chain(CERTIFICATE, KEY, password="")
    except OSError as error:
        sys.exit(f"certificate '{CERTIFICATE}' with key '{KEY}': {error}; check CERTIFICATE and KEY")

    metadata = read_json(context, f"{ISSUER}/.well-known/oauth-authorization-server")
    form = {"grant_type": "client_credentials", "client_id": CLIENT_ID}
    if SCOPE:
        form["scope"] = SCOPE
    endpoint = metadata.get("mtls_endpoint_aliases", {}).get("token_endpoint")
    if not endpoint:
        sys.exit(f"{ISSUER}: the metadata has no mtls_endpoint_aliases; check ISSUER")
    token = read_json(context, endpoint, data=urllib.parse.urlencode(form).encode())
    print(send(context, API, headers={"Authorization": f"Bearer {token['access_token']}"}))


def send(context, url, **options):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=10, context=context) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        # The error id, by which the server's operator finds the reason, is in WWW-Authenticate or in error_description.
        said = error.headers["WWW-Authenticate"]
        with suppress(OSError, http.client.HTTPException):  # the connection may be gone
            said = said or ascii(error.read(300).decode(errors="replace"))
        sys.exit(f"{url}: {error.code} {said or ''}; check the settings, or give the error id, if there is one, to its operator")
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"{url}: {error}; check the URL, whether it is running, and SSL_CERT_FILE if its CA is private")


def read_json(context, url, **options):
    try:
        return json.loads(send(context, url, **options))
    except ValueError:
        sys.exit(f"{url}: the answer is not JSON; check ISSUER")


main()
