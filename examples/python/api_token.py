"""An API that verifies tokens.

They are access tokens behind mtls_bearer, which has checked that they are bound to the client's certificate, or, with
TOKEN_TYPE=gateway+jwt, the tokens that forward_token of mtls_auth adds: gunicorn --bind 127.0.0.1:8080 api_token:app

    mtls_bearer {
        audience https://api.example.com
    }
"""

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


@app.before_request
def authenticate():
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return "unauthorized", 401, {"WWW-Authenticate": "Bearer"}
    try:
        claims = verify(token.strip())
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
