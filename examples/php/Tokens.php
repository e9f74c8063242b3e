<?php
declare(strict_types=1);

require_once __DIR__ . '/Keys.php';
require_once __DIR__ . '/Signature.php';

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
 * Keys.php, Signature.php, and api-token.php or api-mtls.php.
 */
final class Tokens
{
    private const SKEW = 10; // seconds

    public function __construct(private string $issuer, private string $audience, private string $type, private Keys $keys)
    {
    }

    public static function fromEnvironment(): self
    {
        $folder = getenv('STATE_DIRECTORY') ?: sys_get_temp_dir() . '/tokens-' . posix_geteuid();
        $issuer = getenv('ISSUER') ?: '';
        return new self($issuer, getenv('AUDIENCE') ?: '', getenv('TOKEN_TYPE') ?: 'at+jwt', new Keys($issuer, $folder));
    }

    /** Returns the claims of the request's token. */
    public function verify(): array
    {
        if (!preg_match('/^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/i', $_SERVER['HTTP_AUTHORIZATION'] ?? '', $part)) {
            throw new Refusal('', 401);
        }
        $header = json_decode(Signature::decode($part[1]), true);
        // Or a token of another kind, which the same key has signed, would do.
        if (!is_array($header) || !is_string($header['typ'] ?? null) || strcasecmp($header['typ'], $this->type) !== 0) {
            throw self::invalid('wrong typ');
        }
        $key = is_string($header['kid'] ?? null) ? $this->keys->get($header['kid']) : null;
        if (!$key || !Signature::isGood($key, $header, "$part[1].$part[2]", Signature::decode($part[3]))) {
            throw self::invalid('wrong signature, or of an unknown key');
        }
        $claims = json_decode(Signature::decode($part[2]), true);
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
}
