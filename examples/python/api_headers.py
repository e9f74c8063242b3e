"""An API behind mtls_auth or mtls_bearer that takes the client from the headers Caddy sets.

It listens on loopback, because only Caddy may reach it: gunicorn --bind 127.0.0.1:8080 api_headers:app

    mtls_auth {
        header_up X-Client-ID {http.mtls.client_id}
        header_up X-Client-Scope {http.mtls.scope}
    }
"""

from flask import Flask, abort, g, request

app = Flask(__name__)


@app.before_request
def authenticate():
    g.client_id = request.headers.get("X-Client-ID")
    # gunicorn joins headers of one name with a comma. Caddy sets one.
    if not g.client_id or "," in g.client_id:
        abort(401)
    g.scopes = request.headers.get("X-Client-Scope", "").split()


@app.get("/")
def hello():
    return f"hello {g.client_id}"


@app.get("/invoices")
def invoices():
    if "invoices.read" not in g.scopes:
        abort(403)
    return f"invoices of {g.client_id}"
