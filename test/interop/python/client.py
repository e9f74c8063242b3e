"""Gets tokens from mtls_issuer with Authlib and verifies them with PyJWT, as an API does."""

import base64
import hashlib
import os
import re
import ssl

import jwt
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url

CERTIFICATES = os.environ["CERTIFICATES"]
AUDIENCE = os.environ["AUDIENCE"]
STRANGER = os.environ["STRANGER"]
SERVER_CA = os.path.join(CERTIFICATES, "server-ca.pem")


def files(name):
    return tuple(os.path.join(CERTIFICATES, name + suffix) for suffix in (".pem", ".key"))


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def discover(issuer):
    """Read both metadata documents (RFC 8414) and check that they agree."""
    document = requests.get(get_well_known_url(issuer, external=True), verify=SERVER_CA, timeout=60).json()
    equal(requests.get(issuer + "/.well-known/openid-configuration", verify=SERVER_CA, timeout=60).json(), document)
    metadata = AuthorizationServerMetadata(document)
    metadata.validate_issuer()
    metadata.validate_token_endpoint()
    metadata.validate_jwks_uri()
    equal(metadata.issuer, issuer)
    for method in ("tls_client_auth", "self_signed_tls_client_auth"):
        assert method in metadata.token_endpoint_auth_methods_supported, method
    return metadata


def session(client_id, certificate):
    """Return a client that authenticates with a certificate.

    Authlib calls the method `none`: the request names the client and has no secret.
    """
    client = OAuth2Session(client_id, token_endpoint_auth_method="none")
    client.verify = SERVER_CA
    client.trust_env = False  # otherwise REQUESTS_CA_BUNDLE would override SERVER_CA
    client.cert = files(certificate) if certificate else None
    return client


def thumbprint(certificate):
    """Return the x5t#S256 of a certificate (RFC 8705 §3.1).

    An API compares the claim with the certificate of the connection on which it received the token.
    """
    with open(files(certificate)[0], encoding="ascii") as file:
        leaf = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", file.read(), re.DOTALL)[0]
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def verify(metadata, algorithm, token):
    keys = jwt.PyJWKClient(metadata.jwks_uri, ssl_context=ssl.create_default_context(cafile=SERVER_CA))
    verified = jwt.decode_complete(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=[algorithm],
        issuer=metadata.issuer,
        audience=AUDIENCE,
        options={"require": ["iss", "aud", "exp", "iat", "jti", "sub", "client_id"]},
    )
    equal(verified["header"]["typ"], "at+jwt")
    return verified["payload"]


def get_token(metadata, algorithm, client_id):
    """Get a token and check all of it."""
    token = session(client_id, client_id).fetch_token(
        metadata["mtls_endpoint_aliases"]["token_endpoint"],
        grant_type="client_credentials",
        scope="invoices.read",
        resource="https://api.example.com",
    )
    equal(token["token_type"], "Bearer")
    equal(token["scope"], "invoices.read")

    claims = verify(metadata, algorithm, token["access_token"])
    equal(claims["client_id"], client_id)
    equal(claims["sub"], client_id)
    equal(claims["scope"], "invoices.read")
    assert 0 < token["expires_in"] <= 3600, token["expires_in"]
    assert abs(claims["exp"] - claims["iat"] - token["expires_in"]) <= 1, claims
    equal(claims["cnf"], {"x5t#S256": thumbprint(client_id)})
    return token["access_token"]


def introspect_and_revoke(metadata, algorithm):
    """Have the API introspect a token (RFC 7662) and its client revoke it (RFC 7009).

    Another client can neither revoke the token nor learn whether it is valid.
    """
    introspection = metadata["mtls_endpoint_aliases"]["introspection_endpoint"]
    revocation = metadata["mtls_endpoint_aliases"]["revocation_endpoint"]
    api, billing, sensor = (session(client_id, client_id) for client_id in ("api", "billing", "sensor-7"))
    token = get_token(metadata, algorithm, "billing")
    answer = api.introspect_token(introspection, token).json()
    wanted = {
        "active": True,
        "iss": metadata.issuer,
        "aud": AUDIENCE,
        "client_id": "billing",
        "scope": "invoices.read",
        "cnf": {"x5t#S256": thumbprint("billing")},
    }
    equal({name: answer.get(name) for name in wanted}, wanted)
    equal(sensor.introspect_token(introspection, token).json(), {"active": False})
    response = session("api", STRANGER).introspect_token(introspection, token)
    equal((response.status_code, response.json()["error"]), (401, "invalid_client"))

    equal(sensor.revoke_token(revocation, token).status_code, 200)
    equal(api.introspect_token(introspection, token).json()["active"], True)
    equal(billing.revoke_token(revocation, token).status_code, 200)
    equal(api.introspect_token(introspection, token).json(), {"active": False})


def refused(url, client_id, certificate, want, **parameters):
    try:
        session(client_id, certificate).fetch_token(url, grant_type="client_credentials", **parameters)
    except OAuthError as error:
        equal(error.error, want)
    else:
        raise AssertionError(f"{client_id} got a token with the certificate {certificate}, want {want}")


def call_with_token(token, certificate):
    client = session("billing", certificate)
    client.token = {"token_type": "Bearer", "access_token": token}
    return client.get(os.environ["TOKEN_API"])


def challenged(response, status, challenge):
    equal(response.status_code, status)
    assert response.headers["WWW-Authenticate"].startswith(challenge), response.headers["WWW-Authenticate"]


def main():
    for entry in os.environ["ISSUERS"].split():
        algorithm, issuer = entry.split("=")
        metadata = discover(issuer)
        get_token(metadata, algorithm, "billing")
        get_token(metadata, algorithm, "sensor-7")

        endpoint = metadata["mtls_endpoint_aliases"]["token_endpoint"]
        refused(endpoint, "billing", "billing", "invalid_scope", scope="telemetry")
        refused(endpoint, "billing", "billing", "invalid_target", resource="https://other.example.com")
        refused(endpoint, "billing", STRANGER, "invalid_client")
        refused(endpoint, "billing", "sensor-7", "invalid_client")
        refused(endpoint, "billing", None, "invalid_client")
        introspect_and_revoke(metadata, algorithm)
        print(f"  {algorithm}: tokens, refusals, introspection and revocation")

    # The token endpoint for certificates is on another host (RFC 8705 §5). The
    # issuer's own host does not request a certificate.
    metadata = discover(os.environ["MIXED_ISSUER"])
    get_token(metadata, "ES256", "billing")
    refused(metadata.token_endpoint, "billing", "billing", "invalid_client")
    print("  mtls_endpoint_aliases on another host")

    # An API behind mtls_auth accepts a certificate alone.
    api = os.environ["API"]
    response = requests.get(api, verify=SERVER_CA, cert=files("billing"), timeout=60)
    equal((response.status_code, response.text), (200, "hello billing"))
    response = requests.get(api, verify=SERVER_CA, cert=files(STRANGER), timeout=60)
    equal(response.status_code, 401)
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith("ClientCertificate ") and 'error="certificate_refused"' in challenge, challenge
    print("  the API")

    # An API behind mtls_bearer accepts a token with the certificate it is bound to.
    issuer = discover(os.environ["ISSUERS"].split()[0].split("=")[1])
    token = get_token(issuer, "ES256", "billing")
    response = call_with_token(token, "billing")
    equal((response.status_code, response.text), (200, "hello billing"))
    challenged(call_with_token(token, "sensor-7"), 401, 'Bearer error="invalid_token"')
    challenged(call_with_token(token, None), 401, 'Bearer error="invalid_token"')
    sensor = session("sensor-7", "sensor-7")
    sensor.fetch_token(issuer["mtls_endpoint_aliases"]["token_endpoint"], grant_type="client_credentials", scope="telemetry")
    # The session has stored the token and sends it.
    challenged(sensor.get(os.environ["TOKEN_API"]), 403, 'Bearer error="insufficient_scope", scope="invoices.read"')
    response = requests.get(os.environ["TOKEN_API"], verify=SERVER_CA, cert=files("billing"), timeout=60)
    equal((response.status_code, response.headers["WWW-Authenticate"]), (401, "Bearer"))
    print("  the API that requires tokens")


if __name__ == "__main__":
    main()
