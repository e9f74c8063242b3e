"""Calls an API through mtls.py: once, or, with LISTEN, for each request that it gets itself."""

import logging
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

from mtls import MtlsTransport
from mtls_identity import TIMEOUT, MtlsError

ISSUER, CLIENT_ID, SCOPE, CERTIFICATE, KEY, API = (
    os.environ.get(name, "") for name in ("ISSUER", "CLIENT_ID", "SCOPE", "CERTIFICATE", "KEY", "API")
)
http = httpx2.Client(transport=MtlsTransport(ISSUER, CLIENT_ID, CERTIFICATE, KEY, SCOPE), timeout=TIMEOUT)


class Failure(Exception):
    """The API did not answer as it should."""


def call():
    try:
        response = http.get(API)
    except MtlsError as error:
        raise Failure(error) from error
    except httpx2.HTTPError as error:
        raise Failure(f"{API}: {error}; check its URL, and whether it is running") from error
    if response.is_success:
        return response.text
    said = response.headers.get("WWW-Authenticate") or ascii(response.text[:300])
    raise Failure(f"{API}: {response.status_code} {said}; check the URL, or give the error id, if there is one, to its operator")


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, text = 200, call()
        except Failure as failure:
            status, text = 502, f"{failure}\n"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


logging.basicConfig(level=logging.WARNING)
if listen := os.environ.get("LISTEN"):
    host, _, port = listen.rpartition(":")
    try:
        server = Server((host or "127.0.0.1", int(port)), Service)
    except (OSError, ValueError) as error:
        sys.exit(f"LISTEN '{listen}': {error}; set it to a free host:port")
    server.serve_forever()
try:
    print(call())
except Failure as failure:
    sys.exit(str(failure))
