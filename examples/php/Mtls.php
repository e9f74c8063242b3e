<?php
declare(strict_types=1);

require_once __DIR__ . '/MtlsIssuer.php';
require_once __DIR__ . '/MtlsState.php';

/**
 * Sends requests with a client certificate and the access token bound to it. All processes
 * share one token, which one of them at a time renews: when 70 % of its life is over, when
 * an API refuses it, and when the certificate's files have changed. To copy with
 * MtlsIssuer.php and MtlsState.php.
 */
final class Mtls
{
    public function __construct(
        private MtlsIssuer $issuer,
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
        return MtlsIssuer::ask($url, $state->pem, [CURLOPT_HTTPHEADER => ["Authorization: Bearer $state->token"]]);
    }

    /** The certificate and token to use. */
    private function state(?string $refused = null): MtlsState
    {
        $asked = microtime(true);
        $pem = @file_get_contents($this->certificate) . "\n" . @file_get_contents($this->key);
        $file = MtlsState::file($this->folder, [$this->issuer, $this->certificate, $this->key]);
        $state = MtlsState::load($file);
        if ($state->isGood($refused) && !$state->isDue($pem)) {
            return $state;
        }
        // If the token still lasts, nobody waits for the process that renews it.
        $lock = fopen("$file.lock", 'c');
        if (!flock($lock, $state->isGood($refused) ? LOCK_EX | LOCK_NB : LOCK_EX)) {
            return $state;
        }
        $state = MtlsState::load($file); // another process may have renewed it meanwhile, or failed to
        $good = $state->isGood($refused);
        if ($good && !$state->isDue($pem)) {
            return $state;
        }
        if (!$good && $state->failedAt > $asked) {
            throw new RuntimeException($state->error);
        }
        try {
            $state = $this->renewed($state, $pem, $good);
        } catch (RuntimeException $e) {
            [$state->failedAt, $state->error] = [microtime(true), $e->getMessage()];
        }
        $state->save($file);
        if (isset($e) && !$good) {
            throw $e;
        }
        if (isset($e)) {
            error_log("token not renewed, using the old one: $state->error");
        }
        return $state;
    }

    private function renewed(MtlsState $old, string $pem, bool $good): MtlsState
    {
        $new = clone $old;
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
            $begin = time();
            [$new->token, $life] = $this->issuer->requestToken($new->pem);
            [$new->renewAt, $new->endsAt] = [$begin + $life * 0.7, $begin + $life - 1];
        }
        return $new;
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
}
