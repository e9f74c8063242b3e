// Gets tokens from mtls_issuer with openid-client and verifies them with jose, as an
// API does.
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as jose from 'jose'
import * as oauth from 'openid-client'
import { Agent, fetch } from 'undici'

const { CERTIFICATES, ISSUERS, MIXED_ISSUER, API, TOKEN_API, AUDIENCE, STRANGER } = process.env
const read = (file) => readFileSync(join(CERTIFICATES, file))

// withCertificate returns a fetch that trusts the server's CA and presents the named
// certificate, if any. Both libraries can use it instead of their own.
function withCertificate(name) {
  const connect = { ca: read('server-ca.pem') }
  if (name) {
    connect.cert = read(`${name}.pem`)
    connect.key = read(`${name}.key`)
  }
  const dispatcher = new Agent({ connect })
  return (url, options) => fetch(url, { ...options, dispatcher })
}

// discover reads the metadata. TlsClientAuth() works for both methods of RFC 8705,
// tls_client_auth and self_signed_tls_client_auth, since both send the certificate
// alone.
function discover(issuer, clientID, certificate, metadata = { use_mtls_endpoint_aliases: true }, algorithm = 'oidc') {
  return oauth.discovery(new URL(issuer), clientID, metadata, oauth.TlsClientAuth(), {
    [oauth.customFetch]: withCertificate(certificate),
    algorithm, // 'oidc' reads openid-configuration, 'oauth2' oauth-authorization-server
  })
}

function verifier(config, algorithm) {
  const { issuer, jwks_uri } = config.serverMetadata()
  const keys = jose.createRemoteJWKSet(new URL(jwks_uri), { [jose.customFetch]: withCertificate() })
  return async (token) => {
    const { payload } = await jose.jwtVerify(token, keys, {
      issuer,
      audience: AUDIENCE,
      typ: 'at+jwt',
      algorithms: [algorithm],
      requiredClaims: ['exp', 'iat', 'jti', 'sub', 'client_id'],
    })
    return payload
  }
}

// thumbprint returns the x5t#S256 of a certificate (RFC 8705 §3.1). An API compares
// the claim with the certificate of the connection on which it received the token.
const thumbprint = (certificate) =>
  Buffer.from(new X509Certificate(read(`${certificate}.pem`)).fingerprint256.replaceAll(':', ''), 'hex').toString('base64url')

// getToken gets a token and checks all of it.
async function getToken(issuer, algorithm, clientID) {
  const config = await discover(issuer, clientID, clientID)
  const token = await oauth.clientCredentialsGrant(config, { scope: 'invoices.read', resource: 'https://api.example.com' })
  assert.equal(token.token_type, 'bearer')
  assert.equal(token.scope, 'invoices.read')

  const claims = await verifier(config, algorithm)(token.access_token)
  assert.equal(claims.client_id, clientID)
  assert.equal(claims.sub, clientID)
  assert.equal(claims.scope, 'invoices.read')
  assert.ok(token.expires_in > 0 && token.expires_in <= 3600)
  assert.ok(Math.abs(claims.exp - claims.iat - token.expires_in) <= 1)
  assert.deepEqual(claims.cnf, { 'x5t#S256': thumbprint(clientID) })
  return token.access_token
}

async function refused(config, parameters, status, error) {
  await assert.rejects(oauth.clientCredentialsGrant(config, parameters), (err) => {
    assert.ok(err instanceof oauth.ResponseBodyError, `${err}`)
    assert.deepEqual([err.status, err.error], [status, error])
    return true
  })
}

// introspectAndRevoke has the API introspect a token (RFC 7662) and its client revoke
// it (RFC 7009). Another client can neither revoke the token nor learn whether it is
// valid.
async function introspectAndRevoke(issuer, algorithm) {
  const [api, billing, sensor] = await Promise.all(['api', 'billing', 'sensor-7'].map((id) => discover(issuer, id, id)))
  const token = await getToken(issuer, algorithm, 'billing')
  const active = await oauth.tokenIntrospection(api, token)
  assert.deepEqual(
    [active.active, active.iss, active.aud, active.client_id, active.scope, active.cnf],
    [true, issuer, AUDIENCE, 'billing', 'invoices.read', { 'x5t#S256': thumbprint('billing') }],
  )
  assert.deepEqual(await oauth.tokenIntrospection(sensor, token), { active: false })
  await assert.rejects(oauth.tokenIntrospection(await discover(issuer, 'api', STRANGER), token), { status: 401 })

  await oauth.tokenRevocation(sensor, token)
  assert.equal((await oauth.tokenIntrospection(api, token)).active, true)
  await oauth.tokenRevocation(billing, token)
  assert.deepEqual(await oauth.tokenIntrospection(api, token), { active: false })
}

for (const entry of ISSUERS.split(' ')) {
  const [algorithm, issuer] = entry.split('=')
  await getToken(issuer, algorithm, 'billing')
  await getToken(issuer, algorithm, 'sensor-7')

  const oidc = await discover(issuer, 'billing', 'billing')
  const oauth2 = await discover(issuer, 'billing', 'billing', undefined, 'oauth2')
  assert.deepEqual(oidc.serverMetadata(), oauth2.serverMetadata())
  await refused(oidc, { scope: 'telemetry' }, 400, 'invalid_scope')
  await refused(oidc, { resource: 'https://other.example.com' }, 400, 'invalid_target')
  await refused(await discover(issuer, 'billing', STRANGER), {}, 400, 'invalid_client')
  await refused(await discover(issuer, 'billing', 'sensor-7'), {}, 400, 'invalid_client')
  await refused(await discover(issuer, 'billing'), {}, 400, 'invalid_client')
  await introspectAndRevoke(issuer, algorithm)
  console.log(`  ${algorithm}: tokens, refusals, introspection and revocation`)
}

// The token endpoint for certificates is on another host (RFC 8705 §5). A client that
// ignores mtls_endpoint_aliases uses an endpoint that does not request a certificate.
await getToken(MIXED_ISSUER, 'ES256', 'billing')
await refused(await discover(MIXED_ISSUER, 'billing', 'billing', {}), {}, 400, 'invalid_client')
console.log('  mtls_endpoint_aliases on another host')

// An API behind mtls_auth accepts a certificate alone.
const response = await withCertificate('billing')(API)
assert.deepEqual([response.status, await response.text()], [200, 'hello billing'])
const stranger = await withCertificate(STRANGER)(API)
assert.equal(stranger.status, 401)
assert.match(stranger.headers.get('www-authenticate'), /^ClientCertificate .*error="certificate_refused"/)
console.log('  the API')

// An API behind mtls_bearer accepts a token with the certificate it is bound to.
async function callWithToken(token, clientID, certificate) {
  const config = await discover(issuerOfAPI, clientID, certificate)
  return oauth.fetchProtectedResource(config, token, new URL(TOKEN_API), 'GET')
}

async function challenged(call, status, error) {
  await assert.rejects(call, (err) => {
    assert.ok(err instanceof oauth.WWWAuthenticateChallengeError, `${err}`)
    const [challenge] = err.cause
    assert.deepEqual([err.status, challenge.scheme, challenge.parameters.error], [status, 'bearer', error])
    return true
  })
}

const issuerOfAPI = ISSUERS.split(' ')[0].split('=')[1]
const token = await getToken(issuerOfAPI, 'ES256', 'billing')
const answer = await callWithToken(token, 'billing', 'billing')
assert.deepEqual([answer.status, await answer.text()], [200, 'hello billing'])
await challenged(callWithToken(token, 'billing', 'sensor-7'), 401, 'invalid_token')
await challenged(callWithToken(token, 'billing'), 401, 'invalid_token')
const telemetry = await oauth.clientCredentialsGrant(await discover(issuerOfAPI, 'sensor-7', 'sensor-7'), { scope: 'telemetry' })
await challenged(callWithToken(telemetry.access_token, 'sensor-7', 'sensor-7'), 403, 'insufficient_scope')
const bare = await withCertificate('billing')(TOKEN_API)
assert.deepEqual([bare.status, bare.headers.get('www-authenticate')], [401, 'Bearer'])
console.log('  the API that requires tokens')
