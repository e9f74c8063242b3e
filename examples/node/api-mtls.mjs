// An API with no Caddy in front. It asks for the client's certificate and accepts a token only with the certificate that
// the token is bound to (RFC 8705 §3).
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { createSecureContext } from 'node:tls'
import * as jose from 'jose'

const { ISSUER, AUDIENCE, TOKEN_TYPE = 'at+jwt', LISTEN = '127.0.0.1:8443', TLS_CERTIFICATE, TLS_KEY } = process.env
const [, host, port] = LISTEN.match(/^(.*):(\d+)$/) ?? fail(new Error(`LISTEN is '${LISTEN}'`))
const tls = {
  ...readPair(),
  requestCert: true,
  rejectUnauthorized: false, // any certificate: the token says which one it must be
}

class KeysUnavailable extends Error {}

// getKey reads the issuer's keys again every 5 minutes, and for an unknown kid, at most every 10 seconds. With jose's
// defaults, a retired key can go on being accepted for 10 minutes.
let keys
async function getKey(header, token) {
  try {
    if (!keys) {
      const url = `${ISSUER}/.well-known/oauth-authorization-server`
      const { jwks_uri } = await (await fetch(url, { signal: AbortSignal.timeout(10_000) })).json()
      keys = jose.createRemoteJWKSet(new URL(jwks_uri), { cacheMaxAge: 300_000, cooldownDuration: 10_000 })
    }
    return await keys(header, token)
  } catch (error) {
    if (error instanceof jose.errors.JWKSNoMatchingKey) throw error
    throw new KeysUnavailable(`keys of ${ISSUER}: ${error.cause?.message ?? error.message}; is it running?`)
  }
}

async function verify(token, certificate) {
  const { payload } = await jose.jwtVerify(token, getKey, {
    issuer: ISSUER,
    audience: AUDIENCE,
    typ: TOKEN_TYPE,
    algorithms: ['ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512', 'EdDSA'],
    requiredClaims: ['exp', 'client_id'],
    clockTolerance: 10,
  })
  const thumbprint = certificate && createHash('sha256').update(certificate.raw).digest('base64url')
  if (!thumbprint || payload.cnf?.['x5t#S256'] !== thumbprint) throw new Error('the token is bound to another certificate')
  const scopes = [payload.scope ?? []].flat().join(' ').split(' ') // one string, or an array with `scope_claim array`
  return { id: payload.client_id, scopes }
}

createServer(tls, async (request, response) => {
  const answer = (status, text, challenge) =>
    response.writeHead(status, challenge && { 'www-authenticate': challenge }).end(text)
  const [, token] = request.headers.authorization?.match(/^Bearer +(\S+)$/i) ?? []
  if (!token) return answer(401, 'unauthorized', 'Bearer')
  try {
    const client = await verify(token, request.socket.getPeerX509Certificate())
    if (request.url === '/') return answer(200, `hello ${client.id}`)
    if (request.url !== '/invoices') return answer(404, 'not found')
    if (client.scopes.includes('invoices.read')) return answer(200, `invoices of ${client.id}`)
    answer(403, 'forbidden', 'Bearer error="insufficient_scope", scope="invoices.read"')
  } catch (error) {
    console.error('not authenticated: %j', error.message)
    if (error instanceof KeysUnavailable) return answer(503, 'try again later')
    answer(401, 'unauthorized', 'Bearer error="invalid_token"')
  }
}).on('error', fail).listen(port, host)

function readPair() {
  try {
    const pair = { cert: readFileSync(TLS_CERTIFICATE), key: readFileSync(TLS_KEY) }
    createSecureContext(pair) // fails if they do not belong together
    return pair
  } catch (error) {
    fail(error, 'set TLS_CERTIFICATE and TLS_KEY to PEM files that belong together')
  }
}

function fail({ message }, remedy = 'set LISTEN to a free host:port') {
  console.error(`${message}; ${remedy}`)
  process.exit(1)
}
