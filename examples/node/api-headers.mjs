// An API behind mtls_auth or mtls_bearer that takes the client from the headers Caddy sets. It listens on loopback, because
// only Caddy may reach it.
//
//   mtls_auth {
//       header_up X-Client-ID {http.mtls.client_id}
//       header_up X-Client-Scope {http.mtls.scope}
//   }
import { createServer } from 'node:http'

const { LISTEN = '127.0.0.1:8080' } = process.env
const [, host, port] = LISTEN.match(/^(.*):(\d+)$/) ?? fail(new Error(`LISTEN is '${LISTEN}'`))

// clientOf returns the client, if there is one. Requests of Express have the same property.
function clientOf(request) {
  const { 'x-client-id': ids = [], 'x-client-scope': scopes = [] } = request.headersDistinct
  if (ids.length !== 1 || !ids[0]) return
  return { id: ids[0], scopes: scopes.join(' ').split(' ') }
}

createServer((request, response) => {
  const answer = (status, text) => response.writeHead(status, { 'content-type': 'text/plain' }).end(text)
  const client = clientOf(request)
  if (!client) return answer(401, 'unauthorized')
  switch (request.url) {
    case '/':
      return answer(200, `hello ${client.id}`)
    case '/invoices':
      if (!client.scopes.includes('invoices.read')) return answer(403, 'forbidden')
      return answer(200, `invoices of ${client.id}`)
    default:
      return answer(404, 'not found')
  }
}).on('error', fail).listen(port, host)

function fail({ message }) {
  console.error(`${message}; set LISTEN to a free host:port`)
  process.exit(1)
}
