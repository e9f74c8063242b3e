"""A certificate with its own connections and its own token, for mtls.py."""

import logging
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

TIMEOUT = 10
METADATA = "/.well-known/oauth-authorization-server"
log = logging.getLogger(__name__)


class MtlsError(httpx2.TransportError):
    """There is no usable certificate, or no token."""


class Token(NamedTuple):
    value: str
    renew_at: float
    ends_at: float


class Identity:
    """A certificate with its own connections and its own token.

    They are replaced together, because an open connection keeps its certificate, and an API refuses a token on a
    connection with another certificate.
    """

    def __init__(self, certificate, key, issuer, client_id, scope):
        context = ssl.create_default_context()
        try:
            # without a password, an encrypted key would be asked for at the terminal
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise MtlsError(f"certificate '{certificate}' with key '{key}': {error}; check both files") from error
        self._issuer, self._client_id = issuer, client_id
        self._connections = httpx2.HTTPTransport(verify=context)
        # The method "none" sends the client id alone.
        self._oauth = OAuth2Client(
            client_id, scope=scope, token_endpoint_auth_method="none", transport=self._connections, timeout=TIMEOUT
        )
        self._endpoint = None
        self._token = Token("", 0, 0)
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1)
        self._renewal = None

    def send(self, request, token):
        request.headers["Authorization"] = f"Bearer {token}"
        try:
            return self._connections.handle_request(request)
        except (httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.WriteError):
            # A server may close an idle connection just when it is used again.
            if request.method not in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
                raise
            return self._connections.handle_request(request)

    def token(self):
        """Return the token.

        When 70 % of its life is over, one request renews it. Callers wait only if the old one has ended.
        """
        with self._lock:
            if time.monotonic() < self._token.renew_at:
                return self._token.value
            if not self._renewal:
                self._renewal = self._executor.submit(self._renew)
            if time.monotonic() < self._token.ends_at:
                return self._token.value
            renewal = self._renewal
        return renewal.result()

    def discard(self, token):
        with self._lock:
            if self._token.value == token:
                self._token = Token("", 0, 0)

    def _renew(self):
        start = time.monotonic()
        token = failure = None
        try:
            answer = self._request_token()
            life = answer["expires_in"]
            token = Token(answer["access_token"], start + 0.7 * life, start + life - 1)
        except Exception as error:  # whatever it is, it must not stay
            self._endpoint = None  # so that the metadata is read again
            failure = MtlsError(f"token for '{self._client_id}' from {self._issuer}: {describe(error)}")
        with self._lock:
            self._renewal = None
            if token:
                self._token = token
            elif time.monotonic() < self._token.ends_at:
                log.warning("%s; keeping the old one until it ends", failure)
                self._token = self._token._replace(renew_at=time.monotonic() + 5)
            else:
                raise failure
            return self._token.value

    def _request_token(self):
        if not self._endpoint:
            metadata = self._oauth.request("GET", self._issuer + METADATA, withhold_token=True)
            metadata.raise_for_status()
            self._endpoint = metadata.json()["mtls_endpoint_aliases"]["token_endpoint"]
        return self._oauth.fetch_token(self._endpoint, grant_type="client_credentials")


def describe(error):
    """Return the cause of an error and a remedy. The description that an issuer sends has the error id."""
    text = (str(error) or repr(error)).splitlines()[0]
    if isinstance(error, OAuthError):
        return f"{text}; give the error id to its operator"
    if isinstance(error, (KeyError, ValueError)):
        return f"the answer is not that of an issuer ({text}); check its URL"
    return f"{text}; check its URL, whether it is running, and SSL_CERT_FILE if its CA is private"
