<?php
declare(strict_types=1);

/**
 * Sends requests with a client certificate and the access token bound to it. All processes
 * share one token, which one of them at a time renews: when 70 % of its life is over, when
 * an API refuses it, and when the certificate's files have changed.
 *
 * PHP forgets everything after a request. So a file of $folder keeps the token, with the
 * certificate and key it was issued for: an API refuses it on a connection with others.
 */
final class Mtls
{
    public function __construct(
        private string $issuer,
        private string $clientId,
        private string $scope,
        private string $certificate, // PEM: the client's own first, then the intermediate CAs
        private string $key,
        private string $folder,
    ) {
    }

    /** Returns the body of a successful answer. */
    public function get(string $url): string
    {
        $state = $this->state();
        [$status, $body, $challenge] = $this->authorized($url, $state);
        if ($status === 401 && str_contains($challenge, 'invalid_token')) {
            $state = $this->state(refused: $state->token);
            [$status, $body, $challenge] = $this->authorized($url, $state);
        }
        if ($status !== 200) {
            throw new RuntimeException("$url: $status $challenge; give the error id to the operator of the API");
        }
        return $body;
    }

    private function authorized(string $url, MtlsState $state): array
    {
        return $this->ask($url, $state->pem, [CURLOPT_HTTPHEADER => ["Authorization: Bearer $state->token"]]);
    }

    /** The certificate and token to use. */
    private function state(?string $refused = null): MtlsState
    {
        $asked = microtime(true);
        $pem = $this->readFiles();
        $state = $this->load();
        $good = $state->token !== $refused && $asked < $state->endsAt;
        if ($good && !$this->isDue($state, $pem)) {
            return $state;
        }
        // If the token still lasts, nobody waits for the process that renews it.
        $lock = fopen($this->file('lock'), 'c');
        if (!flock($lock, $good ? LOCK_EX | LOCK_NB : LOCK_EX)) {
            return $state;
        }
        $state = $this->load(); // another process may have renewed it meanwhile, or failed to
        $good = $state->token !== $refused && $asked < $state->endsAt;
        if ($good && !$this->isDue($state, $pem)) {
            return $state;
        }
        if (!$good && $state->failedAt > $asked) {
            throw new RuntimeException($state->error);
        }
        return $this->renew($state, $pem, $good);
    }

    private function isDue(MtlsState $state, string $pem): bool
    {
        return microtime(true) >= $state->retryAt && (time() >= $state->renewAt || hash('sha256', $pem) !== $state->files);
    }

    private function renew(MtlsState $old, string $pem, bool $good): MtlsState
    {
        $new = clone $old;
        try {
            $new->files = hash('sha256', $pem);
            try {
                $this->check($pem);
                $new->pem = $pem;
            } catch (RuntimeException $e) {
                if ($old->pem === '') {
                    throw $e;
                }
                // For instance because only one of the files has been replaced yet.
                if ($old->files !== $new->files) {
                    error_log($e->getMessage() . '; keeping the certificate in use');
                }
            }
            if ($new->pem !== $old->pem || !$good || time() >= $old->renewAt) {
                $this->requestToken($new);
            }
        } catch (RuntimeException $e) {
            $new = $old;
            $new->failedAt = microtime(true);
            $new->retryAt = $new->failedAt + ($good ? 5 : 0);
            $new->error = $e->getMessage();
            $this->save($new);
            if (!$good) {
                throw $e;
            }
            error_log('token not renewed, using the old one: ' . $e->getMessage());
            return $new;
        }
        $this->save($new);
        return $new;
    }

    private function requestToken(MtlsState $state): void
    {
        $begin = time();
        $endpoint = $this->askIssuer("$this->issuer/.well-known/oauth-authorization-server", $state->pem)['mtls_endpoint_aliases']['token_endpoint']
            ?? throw new RuntimeException("$this->issuer has no metadata of an issuer; check the URL");
        $form = ['grant_type' => 'client_credentials', 'client_id' => $this->clientId, 'scope' => $this->scope];
        $answer = $this->askIssuer($endpoint, $state->pem, [CURLOPT_POSTFIELDS => http_build_query($form)]);
        $state->token = $answer['access_token'] ?? throw new RuntimeException("$endpoint answered without a token; check the issuer's URL");
        $life = $answer['expires_in'] ?? 0;
        [$state->renewAt, $state->endsAt] = [$begin + $life * 0.7, $begin + $life - 1];
    }

    private function askIssuer(string $url, string $pem, array $options = []): array
    {
        [$status, $body] = $this->ask($url, $pem, $options);
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

    /** Returns the status, the body and WWW-Authenticate. */
    private function ask(string $url, string $pem, array $options): array
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

    private function readFiles(): string
    {
        return @file_get_contents($this->certificate) . "\n" . @file_get_contents($this->key);
    }

    private function check(string $pem): void
    {
        if (!@openssl_x509_read($pem)) {
            throw new RuntimeException("$this->certificate is missing or not a certificate in PEM; check the file");
        }
        if (!@openssl_pkey_get_private($pem)) {
            throw new RuntimeException("$this->key is missing or not a private key in PEM; check the file");
        }
        if (!openssl_x509_check_private_key($pem, $pem)) {
            throw new RuntimeException("$this->key is not the key of $this->certificate; check the files");
        }
    }

    private function load(): MtlsState
    {
        $json = @file_get_contents($this->file('json'));
        $state = new MtlsState();
        foreach (json_decode($json ?: '[]', true) ?? [] as $name => $value) {
            $state->$name = $value;
        }
        return $state;
    }

    /** Others see the old file or the new one, but nothing in between. */
    private function save(MtlsState $state): void
    {
        $file = $this->file('json');
        file_put_contents("$file.new", json_encode($state));
        rename("$file.new", $file);
    }

    /** A file for this client. The folder must not let others read or replace it. */
    private function file(string $suffix): string
    {
        umask(0077);
        if (!is_dir($this->folder)) {
            @mkdir($this->folder);
        }
        clearstatcache();
        if (is_link($this->folder) || @fileowner($this->folder) !== posix_geteuid() || fileperms($this->folder) & 0077) {
            throw new RuntimeException("$this->folder must be a folder that only this user can enter; chmod 700 it, or use another");
        }
        $of = json_encode([$this->issuer, $this->clientId, $this->scope, $this->certificate, $this->key]);
        return "$this->folder/" . substr(hash('sha256', $of), 0, 16) . ".$suffix";
    }
}

/** What processes share. */
final class MtlsState
{
    public string $pem = '';
    public string $token = '';
    public float $renewAt = 0;
    public float $endsAt = 0;
    public string $files = ''; // hash of the certificate's files when they were last looked at
    public float $retryAt = 0;
    public float $failedAt = 0;
    public string $error = '';
}
