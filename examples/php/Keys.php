<?php
declare(strict_types=1);

/** The keys that an issuer publishes. All processes share them. */
final class Keys
{
    // Keys are read again after a minute. If that fails, they are good for four more,
    // because one of them may have been retired.
    private const FRESH = 60;
    private const GOOD = 300;
    // A token may name a key that nobody has published: at most one request in this time asks.
    private const PAUSE = 5;

    public function __construct(private string $issuer, private string $folder)
    {
    }

    /** A published key, from an answer that is not too old. */
    public function get(string $id): ?array
    {
        $known = $this->load();
        $age = microtime(true) - $known['read'];
        if (isset($known['keys'][$id]) && $age < self::FRESH) {
            return $known['keys'][$id];
        }
        // While one process reads the keys, others go on with those that are known.
        $lock = fopen($this->file('lock'), 'c');
        $good = isset($known['keys'][$id]) && $age < self::GOOD;
        if (flock($lock, $good ? LOCK_EX | LOCK_NB : LOCK_EX)) {
            $known = $this->load();
            if (microtime(true) - $known['tried'] > self::PAUSE) {
                try {
                    $known = ['read' => microtime(true), 'keys' => $this->readKeys()] + $known;
                } catch (RuntimeException $e) {
                    error_log('keys not read: ' . $e->getMessage());
                }
                $known['tried'] = microtime(true); // after the failure, for those that waited
                file_put_contents($this->file('new'), json_encode($known));
                rename($this->file('new'), $this->file('json'));
            }
        }
        if (microtime(true) - $known['read'] >= self::GOOD) {
            http_response_code(503);
            exit;
        }
        return $known['keys'][$id] ?? null;
    }

    private function readKeys(): array
    {
        $metadata = self::ask("$this->issuer/.well-known/oauth-authorization-server");
        $set = self::ask($metadata['jwks_uri'] ?? throw new RuntimeException("$this->issuer has no metadata of an issuer; check ISSUER"));
        return array_column($set['keys'] ?? [], null, 'kid');
    }

    private static function ask(string $url): array
    {
        $curl = curl_init($url);
        curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_FAILONERROR => true, CURLOPT_PROTOCOLS => CURLPROTO_HTTPS, CURLOPT_TIMEOUT => 10]);
        if ($ca = getenv('SSL_CERT_FILE')) { // or curl.cainfo of php.ini
            curl_setopt($curl, CURLOPT_CAINFO, $ca);
        }
        $body = curl_exec($curl);
        return json_decode($body ?: '', true) ?? throw new RuntimeException("$url: " . (curl_error($curl) ?: 'no JSON') . '; check ISSUER and SSL_CERT_FILE');
    }

    private function load(): array
    {
        return json_decode(@file_get_contents($this->file('json')) ?: '[]', true) + ['read' => 0, 'tried' => 0, 'keys' => []];
    }

    /** A file for this issuer. The folder must not let others replace it: they would choose the keys. */
    private function file(string $suffix): string
    {
        umask(0077);
        if (!is_dir($this->folder)) {
            @mkdir($this->folder);
        }
        if (is_link($this->folder) || @fileowner($this->folder) !== posix_geteuid() || fileperms($this->folder) & 0077) {
            error_log("$this->folder must be a folder that only this user can enter; chmod 700 it, or use another");
            http_response_code(503);
            exit;
        }
        return "$this->folder/keys-" . substr(hash('sha256', $this->issuer), 0, 16) . ".$suffix";
    }
}
