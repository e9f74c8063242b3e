"""An API with no Caddy in front.

It asks for the client's certificate and accepts a token only with the certificate that the token is bound to (RFC 8705
§3). Python ends a connection with a certificate that it cannot verify, so it needs the clients' CAs, and those of their
certificates that are self-signed. --cert-reqs 1 is ssl.CERT_OPTIONAL:

    gunicorn --bind 0.0.0.0:8443 --certfile server.pem --keyfile server.key \
        --ca-certs clients.pem --cert-reqs 1 api_mtls:app
"""

import base64
import hashlib
import json
import os
import urllib.request
from functools import cache

import jwt
from flask import Flask, g, request

ISSUER, AUDIENCE = os.environ["ISSUER"], os.environ["AUDIENCE"]
TOKEN_TYPE = os.environ.get("TOKEN_TYPE", "at+jwt")
ALGORITHMS = ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "EdDSA"]
app = Flask(__name__)


@cache
def keys():
    with urllib.request.urlopen(f"{ISSUER}/.well-known/oauth-authorization-server", timeout=10) as response:
        metadata = json.load(response)
    # The keys are read again after lifespan, and for an unknown kid, at most once per cooldown_duration. cache_keys
    # would go on accepting a retired key.
    return jwt.PyJWKClient(metadata["jwks_uri"], lifespan=300, cooldown_duration=10, timeout=10)


def verify(token):
    verified = jwt.decode_complete(
        token,
        keys().get_signing_key_from_jwt(token),
        algorithms=ALGORITHMS,
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=10,
        options={"require": ["iss", "aud", "exp", "client_id"]},
    )
    if verified["header"].get("typ") != TOKEN_TYPE:
        raise jwt.InvalidTokenError("the token has another type")
    return verified["payload"]


def thumbprint(certificate):
    return base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()


@app.before_request
def authenticate():
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return "unauthorized", 401, {"WWW-Authenticate": "Bearer"}
    try:
        claims = verify(token.strip())
        certificate = request.environ["gunicorn.socket"].getpeercert(binary_form=True)
        if not certificate or (claims.get("cnf") or {}).get("x5t#S256") != thumbprint(certificate):
            raise jwt.InvalidTokenError("the token is bound to another certificate")
    except (OSError, KeyError, ValueError, jwt.PyJWKClientConnectionError) as error:
        app.logger.error("keys of %s: %s; is it running?", ISSUER, error)
        return "try again later", 503
    except jwt.PyJWTError as error:
        app.logger.warning("token refused: %r", error)
        return "unauthorized", 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    g.client_id = claims["client_id"]
    scope = claims.get("scope", [])  # one string, or a list with `scope_claim array`
    g.scopes = scope.split() if isinstance(scope, str) else scope


@app.get("/")
def hello():
    return f"hello {g.client_id}"


@app.get("/invoices")
def invoices():
    if "invoices.read" not in g.scopes:
        return "forbidden", 403, {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="invoices.read"'}
    return f"invoices of {g.client_id}"
