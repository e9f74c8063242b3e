// Calls an API through mtls.mjs: once, or, with LISTEN, for each request that it gets itself.
import { createServer } from 'node:http'
import { MtlsClient } from './mtls.mjs'

const { ISSUER, CLIENT_ID, SCOPE, CERTIFICATE = '', KEY = '', API, LISTEN } = process.env
const api = new MtlsClient({ issuer: ISSUER, clientId: CLIENT_ID, scope: SCOPE, certificate: CERTIFICATE, key: KEY })

async function call() {
  const response = await api.fetch(API)
  const body = await response.text().catch((error) => { throw new Error(`${API}: ${error.message}; try again`) })
  if (response.ok) return body
  const said = response.headers.get('www-authenticate') ?? body.slice(0, 300)
  throw new Error(`${API}: ${response.status} ${said}; check the URL, or give the error id, if there is one, to its operator`)
}

const oneLine = (error) => error.message.replace(/[^\x20-\x7e]+/g, ' ')

if (LISTEN) {
  const [, host, port] = LISTEN.match(/^(.*):(\d+)$/) ?? fail(new Error(`LISTEN is '${LISTEN}'`))
  createServer(async (request, response) => {
    try {
      response.end(await call())
    } catch (error) {
      response.statusCode = 502
      response.end(`${oneLine(error)}\n`)
    }
  }).on('error', fail).listen(port, host)
} else {
  try {
    console.log(await call())
  } catch (error) {
    console.error(oneLine(error))
    process.exitCode = 1
  }
}

function fail({ message }) {
  console.error(`${message}; set LISTEN to a free host:port`)
  process.exit(1)
}
