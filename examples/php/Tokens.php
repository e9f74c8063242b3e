<?php
declare(strict_types=1);

/** Why a request is refused (RFC 6750 §3.1). */
final class Refusal extends Exception
{
    public function send(): never
    {
        header('WWW-Authenticate: ' . trim("Bearer $this->message"), true, $this->code); // without a status, PHP makes it 401
        exit;
    }
}

/**
 * Verifies access tokens (RFC 9068) with the keys that the issuer publishes. To copy with
 * api-token.php or api-mtls.php. With Composer, firebase/php-jwt verifies the signature; it
 * leaves typ, iss and aud to you.
 */
final class Tokens
{
    // Keys are read again after a minute. If that fails, they are good for four more,
    // because one of them may have been retired.
    private const FRESH = 60;
    private const GOOD = 300;
    // A token may name a key that nobody has published: at most one request in this time asks.
    private const PAUSE = 5;
    private const SKEW = 10;

    // What a curve's public key begins with in DER, before x and y.
    private const CURVES = [
        'P-256' => '3059301306072a8648ce3d020106082a8648ce3d03010703420004',
        'P-384' => '3076301006072a8648ce3d020106052b8104002203620004',
        'P-521' => '30819b301006072a8648ce3d020106052b810400230381860004',
    ];
    private const ALGORITHMS = [ // kty or curve, and hash
        'ES256' => ['P-256', 'sha256'], 'ES384' => ['P-384', 'sha384'], 'ES512' => ['P-521', 'sha512'],
        'RS256' => ['RSA', 'sha256'], 'RS384' => ['RSA', 'sha384'], 'RS512' => ['RSA', 'sha512'],
    ];

    public function __construct(private string $issuer, private string $audience, private string $type, private string $folder)
    {
    }

    public static function fromEnvironment(): self
    {
        $folder = getenv('STATE_DIRECTORY') ?: sys_get_temp_dir() . '/tokens-' . posix_geteuid();
        return new self(getenv('ISSUER') ?: '', getenv('AUDIENCE') ?: '', getenv('TOKEN_TYPE') ?: 'at+jwt', $folder);
    }

    /** Returns the claims of the request's token. */
    public function verify(): array
    {
        if (!preg_match('/^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/i', $_SERVER['HTTP_AUTHORIZATION'] ?? '', $part)) {
            throw new Refusal('', 401);
        }
        $header = json_decode(self::decode($part[1]), true);
        // Or a token of another kind, which the same key has signed, would do.
        if (!is_array($header) || !is_string($header['typ'] ?? null) || strcasecmp($header['typ'], $this->type) !== 0) {
            throw self::invalid('wrong typ');
        }
        $key = is_string($header['kid'] ?? null) ? $this->key($header['kid']) : null;
        if (!$key || !self::isSigned($key, $header, "$part[1].$part[2]", self::decode($part[3]))) {
            throw self::invalid('wrong signature, or of an unknown key');
        }
        $claims = json_decode(self::decode($part[2]), true);
        if (($claims['iss'] ?? null) !== $this->issuer || !in_array($this->audience, (array) ($claims['aud'] ?? []), true)) {
            throw self::invalid('wrong iss or aud');
        }
        if (!is_int($claims['exp'] ?? null) || time() > $claims['exp'] + self::SKEW || time() + self::SKEW < ($claims['nbf'] ?? 0)) {
            throw self::invalid('expired');
        }
        return $claims;
    }

    public static function requireScope(array $claims, string $scope): void
    {
        if (!in_array($scope, explode(' ', $claims['scope'] ?? ''), true)) {
            throw new Refusal("error=\"insufficient_scope\", scope=\"$scope\"", 403);
        }
    }

    public static function invalid(string $why): Refusal
    {
        return new Refusal("error=\"invalid_token\", error_description=\"$why\"", 401);
    }

    /** The algorithm is that of the key, not what the token says. */
    private static function isSigned(array $key, array $header, string $signed, string $signature): bool
    {
        [$kind, $hash] = self::ALGORITHMS[$key['alg'] ?? ''] ?? ['', ''];
        if (($header['alg'] ?? null) !== ($key['alg'] ?? '') || isset($header['crit']) || $kind !== ($key['crv'] ?? $key['kty'])) {
            return false;
        }
        if ($kind === 'RSA') {
            $numbers = self::der(0x30, self::number(self::decode($key['n'])) . self::number(self::decode($key['e'])));
            $der = self::der(0x30, hex2bin('300d06092a864886f70d0101010500') . self::der(0x03, "\0$numbers"));
        } else {
            $der = hex2bin(self::CURVES[$kind]) . self::decode($key['x']) . self::decode($key['y']);
            if (strlen($signature) !== strlen(self::decode($key['x'])) * 2) {
                return false;
            }
            [$r, $s] = str_split($signature, intdiv(strlen($signature), 2));
            $signature = self::der(0x30, self::number($r) . self::number($s));
        }
        $pem = "-----BEGIN PUBLIC KEY-----\n" . chunk_split(base64_encode($der), 64, "\n") . '-----END PUBLIC KEY-----';
        return openssl_verify($signed, $signature, $pem, $hash) === 1;
    }

    private static function der(int $tag, string $value): string
    {
        $length = ltrim(pack('N', strlen($value)), "\0");
        return chr($tag) . (strlen($value) < 128 ? chr(strlen($value)) : chr(0x80 | strlen($length)) . $length) . $value;
    }

    private static function number(string $bytes): string
    {
        $bytes = ltrim($bytes, "\0");
        return self::der(0x02, $bytes === '' || ord($bytes[0]) > 127 ? "\0$bytes" : $bytes);
    }

    private static function decode(string $base64url): string
    {
        return base64_decode(strtr($base64url, '-_', '+/'));
    }

    /** A published key, from an answer that is not too old. */
    private function key(string $id): ?array
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
        $metadata = self::get("$this->issuer/.well-known/oauth-authorization-server");
        $set = self::get($metadata['jwks_uri'] ?? throw new RuntimeException("$this->issuer has no metadata of an issuer; check ISSUER"));
        return array_column($set['keys'] ?? [], null, 'kid');
    }

    private static function get(string $url): array
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
