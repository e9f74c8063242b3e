// The smallest client: Node.js alone. It gets an access token with its certificate, and calls the API with both,
// because the token is bound to the certificate.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { createSecureContext } from 'node:tls'

const { ISSUER, CLIENT_ID, SCOPE, CERTIFICATE = '', KEY = '', API } = process.env

// connect returns connections that send the certificate, and the intermediate CAs that follow it in its file.
function connect() {
  try {
    return new Agent({ secureContext: createSecureContext({ cert: readFileSync(CERTIFICATE), key: readFileSync(KEY) }) })
  } catch (error) {
    throw new Error(`certificate '${CERTIFICATE}' with key '${KEY}': ${error.message}; check CERTIFICATE and KEY`)
  }
}

async function send(agent, url, { body, ...options } = {}) {
  let response, text
  try {
    const call = request(url, { ...options, agent, signal: AbortSignal.timeout(10_000) });
    [response] = await once(call.end(body), 'response')
    text = (await response.setEncoding('utf8').toArray()).join('')
  } catch (error) {
    const { message } = error.cause ?? error.errors?.[0] ?? error
    throw new Error(`${url}: ${message}; check the URL, whether it is running, and NODE_EXTRA_CA_CERTS if its CA is private`)
  }
  if (response.statusCode === 200) return text
  // The error id, by which the server's operator finds the reason, is in WWW-Authenticate or in error_description.
  const said = (response.headers['www-authenticate'] ?? text.slice(0, 300)).replace(/[^\x20-\x7e]+/g, ' ')
  throw new Error(`${url}: ${response.statusCode} ${said}; check the settings, or give its operator the error id, if there is one`)
}

async function getJSON(agent, url, options) {
  const text = await send(agent, url, options)
  try {
    return JSON.parse(text)
  } catch {
    throw new Error(`${url}: the answer is not JSON; check ISSUER`)
  }
}

try {
  const agent = connect()
  const metadata = await getJSON(agent, `${ISSUER}/.well-known/oauth-authorization-server`)
  const endpoint = metadata.mtls_endpoint_aliases?.token_endpoint
  if (!endpoint) throw new Error(`${ISSUER}: the metadata has no mtls_endpoint_aliases; check ISSUER`)
  const form = new URLSearchParams({ grant_type: 'client_credentials', client_id: CLIENT_ID, ...(SCOPE && { scope: SCOPE }) })
  const headers = { 'content-type': 'application/x-www-form-urlencoded' }
  const { access_token } = await getJSON(agent, endpoint, { method: 'POST', headers, body: form.toString() })
  console.log(await send(agent, API, { headers: { authorization: `Bearer ${access_token}` } }))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
