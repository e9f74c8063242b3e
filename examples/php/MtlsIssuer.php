<?php
declare(strict_types=1);

/** Requests tokens from an issuer. */
final class MtlsIssuer
{
    public function __construct(private string $url, private string $clientId, private string $scope)
    {
    }

    /** Returns a token that is bound to the certificate, and its life in seconds. */
    public function requestToken(string $pem): array
    {
        $metadata = self::askJson("$this->url/.well-known/oauth-authorization-server", $pem);
        $endpoint = $metadata['mtls_endpoint_aliases']['token_endpoint']
            ?? throw new RuntimeException("$this->url has no metadata of an issuer; check the URL");
        $form = ['grant_type' => 'client_credentials', 'client_id' => $this->clientId, 'scope' => $this->scope];
        $answer = self::askJson($endpoint, $pem, [CURLOPT_POSTFIELDS => http_build_query($form)]);
        $token = $answer['access_token'] ?? throw new RuntimeException("$endpoint answered without a token; check the issuer's URL");
        return [$token, $answer['expires_in'] ?? 0];
    }

    private static function askJson(string $url, string $pem, array $options = []): array
    {
        [$status, $body] = self::ask($url, $pem, $options);
        $answer = json_decode($body, true);
        if (!is_array($answer)) {
            throw new RuntimeException("$url: $status, and no JSON; check the issuer's URL");
        }
        if ($status !== 200) { // error_description has the error id
            $said = json_encode([$answer['error'] ?? null, $answer['error_description'] ?? null], JSON_UNESCAPED_SLASHES);
            throw new RuntimeException("$url: $status $said; give the error id to the operator of the issuer");
        }
        return $answer;
    }

    /** Sends a request with a certificate, and returns the status, the body and WWW-Authenticate. */
    public static function ask(string $url, string $pem, array $options): array
    {
        $challenge = '';
        $curl = curl_init($url);
        curl_setopt_array($curl, $options + [
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_PROTOCOLS => CURLPROTO_HTTPS,
            CURLOPT_TIMEOUT => 10,
            CURLOPT_SSLCERT_BLOB => $pem,
            CURLOPT_SSLKEY_BLOB => $pem,
            CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$challenge) {
                if (stripos($line, 'WWW-Authenticate:') === 0) {
                    $challenge = trim(substr($line, 17));
                }
                return strlen($line);
            },
        ]);
        if ($ca = getenv('SSL_CERT_FILE')) { // or curl.cainfo of php.ini
            curl_setopt($curl, CURLOPT_CAINFO, $ca);
        }
        $body = curl_exec($curl);
        if ($body === false) {
            throw new RuntimeException("$url: " . curl_error($curl) . '; check the URL, that its server is up, and its CA');
        }
        return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $body, $challenge];
    }
}
