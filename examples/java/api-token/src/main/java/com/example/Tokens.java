package com.example;

import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.jwk.source.RateLimitReachedException;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.Resource;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
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
    /** Verifies signatures with the keys of the issuer, which is asked for them when the first token comes. */
    @Bean
    JwtDecoder jwtDecoder(RestClient.Builder builder, @Value("${issuer}") String issuer, OAuth2TokenValidator<Jwt> validator) {
        var http = builder.build();
        return new SupplierJwtDecoder(() -> {
            var metadata = http.get().uri(issuer + "/.well-known/openid-configuration").retrieve().body(Map.class);
            var decoder = NimbusJwtDecoder.withJwkSource(keys(http, (String) metadata.get("jwks_uri")))
                .jwsAlgorithms(all -> all.addAll(List.of(SignatureAlgorithm.values()))).build();
            decoder.setJwtValidator(validator);
            return decoder;
        });
    }

    /**
     * Reads the keys every minute, because a retired key is good until they are read again, and at once for a key that is unknown,
     * twice in 30 seconds at most. Spring's own source has no such limit: anybody could make it ask with every request.
     */
    private static JWKSource<SecurityContext> keys(RestClient http, String uri) {
        JWKSource<SecurityContext> source = JWKSourceBuilder
            .create(UrlResource.from(uri).getURL(), url -> new Resource(http.get().uri(uri).retrieve().body(String.class), null))
            .cache(60_000, 10_000).rateLimited(30_000).build();
        return (selector, context) -> {
            try {
                return source.get(selector, context);
            } catch (RateLimitReachedException e) {
                return List.of();
            }
        };
    }

    /** Checks what RFC 9068 demands. By default, Spring accepts no type but "JWT", and wants the client's certificate, which Caddy has. */
    @Bean
    OAuth2TokenValidator<Jwt> validator(@Value("${issuer}") String issuer, @Value("${audience}") String audience, @Value("${token-type}") String type) {
        var time = new JwtTimestampValidator(Duration.ofSeconds(10));   // its default is a minute, the whole life of a token of forward_token
        time.setAllowEmptyExpiryClaim(false);
        return JwtValidators.createAtJwtValidator().issuer(issuer).audience(audience)
            .validators(claims -> {
                claims.put("typ", new JwtTypeValidator(type));
                claims.put("exp", time);
            })
            .build();
    }
}
