// Calls APIs with a client certificate and the access token that is bound to it:
//
//   const api = new MtlsClient({ issuer, clientId, scope, certificate: 'client.pem', key: 'client.key' })
//   const response = await api.fetch('https://api.example.com/invoices')
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import * as oauth from 'openid-client'
import { Agent, Headers, fetch, interceptors } from 'undici'

const second = 1000
const timeout = 10 * second
// A server may close an idle connection just when it is used again. Only GET and the like are repeated.
const retry = { maxRetries: 2, minTimeout: 0, statusCodes: [], errorCodes: ['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'] }

export class MtlsClient {
  #settings
  #identity
  #next
  #files
  #lookAgainAt
  #complaint

  constructor(settings) {
    this.#settings = settings
  }

  // fetch is undici's fetch with a token. If the API answers invalid_token, it gets a new token and sends the request once
  // more, so a body must not be a stream.
  async fetch(url, options = {}) {
    for (let again = false; ; again = true) {
      const identity = this.#current()
      const token = await identity.token()
      const headers = new Headers(options.headers)
      headers.set('authorization', `Bearer ${token}`)
      const response = await identity.fetch(url, { ...options, headers })
      const challenge = response.headers.get('www-authenticate') ?? ''
      if (again || response.status !== 401 || !challenge.includes('error="invalid_token"')) return response
      await response.body?.cancel()
      identity.discard(token)
    }
  }

  // #current returns the identity in use. It reads the files again once a second. While they are broken, or do not match
  // because only one of them has been replaced yet, the identity stays.
  #current() {
    if (this.#identity && performance.now() < this.#lookAgainAt) return this.#identity
    this.#lookAgainAt = performance.now() + second
    const { certificate, key } = this.#settings
    try {
      const files = [readFileSync(certificate), readFileSync(key)]
      if (!this.#files?.every((file, i) => file.equals(files[i]))) {
        const identity = new Identity(this.#settings, createSecureContext({ cert: files[0], key: files[1] }))
        this.#files = files
        if (this.#identity) this.#replaceBy(identity)
        else this.#identity = identity
      }
      this.#complaint = undefined
    } catch (error) {
      const complaint = `certificate '${certificate}' with key '${key}': ${error.message}`
      if (!this.#identity) throw new Error(`${complaint}; check both files`)
      if (complaint !== this.#complaint) console.error(`${complaint}; keeping the one in use`)
      this.#complaint = complaint
    }
    return this.#identity
  }

  // #replaceBy uses another identity once it has a token: the issuer may not know the new certificate yet.
  async #replaceBy(identity) {
    this.#next = identity
    try {
      await identity.token()
      if (this.#next === identity) this.#identity = identity
    } catch (error) {
      console.error(`${error.message}; keeping the certificate in use`)
      this.#files = undefined // so that they are tried again
      this.#lookAgainAt = performance.now() + 5 * second
    }
  }
}

// An Identity is a certificate with its own connections and its own token. They are replaced together, because an open
// connection keeps its certificate, and an API refuses a token on a connection with another certificate. Connections that
// are no longer used close after a few idle seconds.
class Identity {
  #settings
  #connections
  #issuer
  #token
  #renewal

  constructor(settings, secureContext) {
    this.#settings = settings
    this.#connections = new Agent({ connect: { secureContext, timeout } }).compose(interceptors.retry(retry))
  }

  async fetch(url, options) {
    try {
      return await fetch(url, { signal: AbortSignal.timeout(timeout), ...options, dispatcher: this.#connections })
    } catch (error) {
      throw new Error(`${url}: ${describe(error)}`, { cause: error })
    }
  }

  // token returns the token. When 70 % of its life is over, one request renews it. Callers wait only if the old one has
  // ended.
  async token() {
    const now = performance.now()
    const { value, renewAt, endsAt } = this.#token ?? {}
    if (now < renewAt) return value
    if (!this.#renewal) {
      this.#renewal = this.#renew().finally(() => (this.#renewal = undefined))
      this.#renewal.catch(() => {}) // only callers who wait get the error
    }
    return now < endsAt ? value : this.#renewal
  }

  discard(token) {
    if (this.#token?.value === token) this.#token = undefined
  }

  async #renew() {
    const { issuer, clientId, scope } = this.#settings
    const start = performance.now()
    try {
      this.#issuer ??= await this.#discover()
      const answer = await oauth.clientCredentialsGrant(this.#issuer, scope ? { scope } : {})
      const life = answer.expires_in * second
      this.#token = { value: answer.access_token, renewAt: start + 0.7 * life, endsAt: start + life - second }
    } catch (error) {
      this.#issuer = undefined // so that the metadata is read again
      const complaint = `token for '${clientId}' from ${issuer}: ${describe(error)}`
      if (!(performance.now() < this.#token?.endsAt)) throw new Error(complaint)
      console.error(`${complaint}; keeping the old one until it ends`)
      this.#token.renewAt = performance.now() + 5 * second
    }
    return this.#token.value
  }

  #discover() {
    const { issuer, clientId } = this.#settings
    return oauth.discovery(new URL(issuer), clientId, { use_mtls_endpoint_aliases: true }, oauth.TlsClientAuth(), {
      [oauth.customFetch]: (url, options) => fetch(url, { ...options, dispatcher: this.#connections }),
      timeout: timeout / second,
    })
  }
}

// describe returns the cause of an error and a remedy. The description that an issuer sends has the error id.
function describe(error) {
  if (error instanceof oauth.ResponseBodyError) {
    return `${error.status} ${error.error}: ${error.error_description}; give the error id to its operator`
  }
  while (error.cause instanceof Error) error = error.cause
  const { status, headers } = error.cause ?? {}
  if (status) return `${error.message}: ${status} ${headers.get('content-type')}; check its URL`
  return `${error.errors?.[0].message ?? error.message}; check its URL, whether it is running, and NODE_EXTRA_CA_CERTS if its CA is private`
}
