<?php
// An API that verifies tokens: access tokens behind mtls_bearer ("at+jwt"), which has checked
// that they are bound to the certificate, or the token that forward_token of mtls_auth adds
// ("gateway+jwt").
//
//   mtls_bearer {
//       audience https://api.example.com
//   }
declare(strict_types=1);

require __DIR__ . '/Tokens.php';

try {
    $client = Tokens::fromEnvironment()->verify();
    switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
        case '/':
            echo "hello {$client['client_id']}";
            break;
        case '/invoices':
            Tokens::requireScope($client, 'invoices.read');
            echo "invoices of {$client['client_id']}";
            break;
        default:
            http_response_code(404);
    }
} catch (Refusal $refusal) {
    $refusal->send();
}
