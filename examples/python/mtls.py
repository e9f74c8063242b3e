"""Calls APIs with a client certificate and the access token that is bound to it. To copy with mtls_identity.py.

    http = httpx2.Client(transport=MtlsTransport(issuer, client_id, "client.pem", "client.key"), timeout=10)
    response = http.get("https://api.example.com/invoices")
"""

import logging
import threading
import time
from pathlib import Path

import httpx2

from mtls_identity import Identity, MtlsError

log = logging.getLogger(__name__)


class MtlsTransport(httpx2.BaseTransport):
    """Sends requests with the certificate and a token. Threads can share it."""

    def __init__(self, issuer, client_id, certificate, key, scope=None):
        self._settings = certificate, key, issuer, client_id, scope
        self._lock = threading.Lock()  # of who makes an identity
        self._identity = self._files = None
        self._look_at = 0

    def handle_request(self, request):
        request.read()  # it may be sent twice
        identity = self._current()
        token = identity.token()
        response = identity.send(request, token)
        if response.status_code == 401 and 'error="invalid_token"' in response.headers.get("WWW-Authenticate", ""):
            response.close()
            identity.discard(token)
            identity = self._current()
            response = identity.send(request, identity.token())
        return response

    def _current(self):
        """Return the identity in use. Once a second, a thread looks whether the files have changed."""
        if not self._identity:
            with self._lock:
                if not self._identity:
                    self._files = self._read()
                    self._identity = Identity(*self._settings)
        elif time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            threading.Thread(target=self._look, daemon=True).start()
        return self._identity

    def _look(self):
        """Replace the identity if the files have changed, as soon as the new one has a token."""
        try:
            files = self._read()
            if files != self._files:
                identity = Identity(*self._settings)
                identity.token()
                self._identity, self._files = identity, files
            self._look_at = time.monotonic() + 1
        except MtlsError as error:  # for instance because only one of the files has been replaced yet
            log.warning("certificate not replaced: %s; keeping the one in use", error)
            self._look_at = time.monotonic() + 5
        finally:
            self._lock.release()

    def _read(self):
        try:
            return [Path(path).read_bytes() for path in self._settings[:2]]
        except OSError as error:
            raise MtlsError(f"{error}; check the files of the certificate and its key") from error
