<?php
declare(strict_types=1);

/**
 * What the processes of a client share. PHP forgets everything after a request, so a file
 * keeps the token, with the certificate and key it was issued for: an API refuses it on a
 * connection with others.
 */
final class MtlsState
{
    public string $pem = '';
    public string $token = '';
    public float $renewAt = 0;
    public float $endsAt = 0;
    public string $files = ''; // hash of the certificate's files when they were last looked at
    public float $failedAt = 0;
    public string $error = '';

    public function isGood(?string $refused): bool
    {
        return $this->token !== $refused && microtime(true) < $this->endsAt;
    }

    public function isDue(string $pem): bool
    {
        return microtime(true) >= $this->failedAt + 5 && (time() >= $this->renewAt || hash('sha256', $pem) !== $this->files);
    }

    public static function load(string $file): self
    {
        $state = new self();
        foreach (json_decode(@file_get_contents($file) ?: '[]', true) ?? [] as $name => $value) {
            $state->$name = $value;
        }
        return $state;
    }

    /** Others see the old file or the new one, but nothing in between. */
    public function save(string $file): void
    {
        file_put_contents("$file.new", json_encode($this));
        rename("$file.new", $file);
    }

    /** The file of a client. The folder must not let others read or replace it. */
    public static function file(string $folder, array $client): string
    {
        umask(0077);
        if (!is_dir($folder)) {
            @mkdir($folder);
        }
        clearstatcache();
        if (is_link($folder) || @fileowner($folder) !== posix_geteuid() || fileperms($folder) & 0077) {
            throw new RuntimeException("$folder must be a folder that only this user can enter; chmod 700 it, or use another");
        }
        return "$folder/" . substr(hash('sha256', serialize($client)), 0, 16) . '.json';
    }
}
