<?php
// An API behind mtls_auth or mtls_bearer that takes the client from the headers Caddy sets.
// It must be reachable through Caddy only.
//
//   mtls_auth {
//       header_up X-Client-ID {http.mtls.client_id}
//       header_up X-Client-Scope {http.mtls.scope}
//   }
declare(strict_types=1);

$client = $_SERVER['HTTP_X_CLIENT_ID'] ?? '';
$scopes = explode(' ', $_SERVER['HTTP_X_CLIENT_SCOPE'] ?? '');

// PHP joins headers of one name with ', '. Caddy sends one, and no client id has a space.
if ($client === '' || str_contains($client, ' ')) {
    http_response_code(401);
    exit;
}
switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/':
        echo "hello $client";
        break;
    case '/invoices':
        if (!in_array('invoices.read', $scopes, true)) {
            http_response_code(403);
            exit;
        }
        echo "invoices of $client";
        break;
    default:
        http_response_code(404);
}
