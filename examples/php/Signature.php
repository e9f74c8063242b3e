<?php
declare(strict_types=1);

/**
 * Verifies the signature of a JWT with a key of a JWKS (RFC 7515, 7517). With Composer,
 * firebase/php-jwt does it; it leaves typ, iss and aud to you.
 */
final class Signature
{
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

    /** The algorithm is that of the key, not what the token says. */
    public static function isGood(array $key, array $header, string $signed, string $signature): bool
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

    public static function decode(string $base64url): string
    {
        return base64_decode(strtr($base64url, '-_', '+/'));
    }
}
