package com.example;

import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.ssl.SslBundles;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.io.UrlResource;
import org.springframework.security.oauth2.core.OAuth2TokenValidator;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.jwt.*;
import org.springframework.web.client.RestClient;

/** How tokens are verified. */
@Configuration
class Tokens {
    /**
     * Verifies signatures with the keys of the issuer, which is asked for them when the first token comes. They are read again every 5
     * minutes, because a retired key is good until then, and at once for a key that is unknown, but twice in 30 seconds at most. The
     * source of keys that Spring makes has no such limit: anybody could make it ask the issuer with every request.
     */
    @Bean
    JwtDecoder jwtDecoder(RestClient.Builder http, SslBundles bundles, @Value("${issuer}") String issuer, OAuth2TokenValidator<Jwt> validator) {
        return new SupplierJwtDecoder(() -> {
            var metadata = http.build().get().uri(issuer + "/.well-known/openid-configuration").retrieve().body(Map.class);
            var tls = bundles.getBundle("servers").createSslContext().getSocketFactory();
            var keys = JWKSourceBuilder.create(UrlResource.from((String) metadata.get("jwks_uri")).getURL(),
                new DefaultResourceRetriever(10_000, 10_000, 1 << 20, true, tls)).build();
            var decoder = NimbusJwtDecoder.withJwkSource(keys).jwsAlgorithms(all -> all.addAll(List.of(SignatureAlgorithm.values()))).build();
            decoder.setJwtValidator(validator);
            return decoder;
        });
    }

    /**
     * Checks that the token is for this API and bound to the certificate of the request's connection (RFC 8705 §3). Spring's default
     * validators compare cnf with the certificate, but only if there is a cnf: a token without one is refused here.
     */
    @Bean
    OAuth2TokenValidator<Jwt> validator(@Value("${issuer}") String issuer, @Value("${audience}") String audience) {
        var time = new JwtTimestampValidator(Duration.ofSeconds(10));
        time.setAllowEmptyExpiryClaim(false);
        var bound = new JwtClaimValidator<Map<String, Object>>("cnf", cnf -> cnf != null && cnf.containsKey("x5t#S256"));
        return JwtValidators.createDefaultWithValidators(new JwtTypeValidator("at+jwt"), time, new JwtIssuerValidator(issuer),
            new JwtAudienceValidator(audience), bound);
    }
}
