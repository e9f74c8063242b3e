<?php
// Calls an API as an OAuth 2.0 client with a certificate: once, or for each request to a
// service of its own. Mtls.php, with MtlsIssuer.php and MtlsState.php, is the part to copy.
declare(strict_types=1);

require __DIR__ . '/Mtls.php';

function invoices(): string
{
    $setting = fn (string $name): string => getenv($name) ?: throw new RuntimeException("$name is not set; it must be in the environment");
    $client = new Mtls(
        new MtlsIssuer($setting('ISSUER'), $setting('CLIENT_ID'), getenv('SCOPE') ?: ''),
        certificate: $setting('CERTIFICATE'),
        key: $setting('KEY'),
        folder: getenv('STATE_DIRECTORY') ?: sys_get_temp_dir() . '/mtls-' . posix_geteuid(),
    );
    return $client->get($setting('API'));
}

try {
    echo invoices(), "\n";
} catch (RuntimeException $e) {
    if (PHP_SAPI === 'cli') {
        fwrite(STDERR, $e->getMessage() . "\n");
        exit(1);
    }
    http_response_code(502);
    header('Content-Type: text/plain');
    echo $e->getMessage(), "\n";
}
