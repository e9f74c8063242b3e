<?php
// An API with no Caddy in front: nginx asks for the client's certificate (nginx.conf), and a
// token is good with the certificate it was issued for alone (RFC 8705 §3).
declare(strict_types=1);

require __DIR__ . '/Tokens.php';

function requireBinding(array $claims): void
{
    // nginx has checked that the client has the key, but not who issued the certificate:
    // the token says which one it must be.
    $certificate = urldecode($_SERVER['SSL_CLIENT_CERT'] ?? '');
    $hash = $certificate === '' ? false : openssl_x509_fingerprint($certificate, 'sha256', true);
    $thumbprint = rtrim(strtr(base64_encode((string) $hash), '+/', '-_'), '=');
    if ($hash === false || $thumbprint !== ($claims['cnf']['x5t#S256'] ?? null)) {
        throw Tokens::invalid('bound to another certificate');
    }
}

try {
    $client = Tokens::fromEnvironment()->verify();
    requireBinding($client);
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
