<?php
// The smallest client: gets an access token with a client certificate and calls an API
// with it. It needs nothing but PHP's curl extension.
declare(strict_types=1);

function fail(string $error): never
{
    fwrite(STDERR, "$error\n");
    exit(1);
}

function setting(string $name): string
{
    return getenv($name) ?: fail("$name is not set; it must be in the environment");
}

/** Returns the body of the answer. Who refuses says why in the body or in WWW-Authenticate, with an error id. */
function ask(string $url, array $options): string
{
    $curl = curl_init($url);
    curl_setopt_array($curl, $options + [
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 10,
        CURLOPT_SSLCERT => setting('CERTIFICATE'),
        CURLOPT_SSLKEY => setting('KEY'),
        CURLOPT_KEYPASSWD => '', // or OpenSSL asks for it on the terminal
        CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$challenge) {
            if (stripos($line, 'WWW-Authenticate:') === 0) {
                $challenge = trim($line);
            }
            return strlen($line);
        },
    ] + (getenv('SSL_CERT_FILE') ? [CURLOPT_CAINFO => getenv('SSL_CERT_FILE')] : []));
    $body = curl_exec($curl);
    if ($body === false) {
        fail("$url: " . curl_error($curl) . '; check the URL, CERTIFICATE, KEY and SSL_CERT_FILE');
    }
    $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
    if ($status !== 200) {
        $said = $challenge ?? preg_replace('/[^ -~]+/', ' ', substr($body, 0, 300));
        fail("$url: $status $said; give the error id to the operator of the server");
    }
    return $body;
}

$metadata = json_decode(ask(setting('ISSUER') . '/.well-known/oauth-authorization-server', []), true);
$endpoint = $metadata['mtls_endpoint_aliases']['token_endpoint'] ?? fail(setting('ISSUER') . ' has no metadata of an issuer; check ISSUER');

$form = ['grant_type' => 'client_credentials', 'client_id' => setting('CLIENT_ID'), 'scope' => getenv('SCOPE') ?: ''];
$answer = json_decode(ask($endpoint, [CURLOPT_POSTFIELDS => http_build_query($form)]), true);
$token = $answer['access_token'] ?? fail("$endpoint answered without a token; check ISSUER");

echo ask(setting('API'), [CURLOPT_HTTPHEADER => ["Authorization: Bearer $token"]]), "\n";
