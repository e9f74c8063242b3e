package com.example;

import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.util.Resource;
import java.io.IOException;
import java.net.URL;
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
import org.springframework.web.client.RestClientException;

/** How tokens are verified. */
@Configuration
class Tokens {
    /**
     * Verifies signatures with the keys of the issuer, which is asked for them when the first token comes. They are read again every 5
     * minutes, because a retired key is good until then, and at once for a key that is unknown, but twice in 30 seconds at most. The
     * source of keys that Spring makes has no such limit: anybody could make it ask the issuer with every request.
     */
    @Bean
    JwtDecoder jwtDecoder(RestClient.Builder builder, @Value("${issuer}") String issuer, OAuth2TokenValidator<Jwt> validator) {
        var http = builder.build();
        return new SupplierJwtDecoder(() -> {
            var metadata = http.get().uri(issuer + "/.well-known/openid-configuration").retrieve().body(Map.class);
            var jwks = UrlResource.from((String) metadata.get("jwks_uri")).getURL();
            var keys = JWKSourceBuilder.create(jwks, url -> read(http, url)).build();
            var decoder = NimbusJwtDecoder.withJwkSource(keys).jwsAlgorithms(all -> all.addAll(List.of(SignatureAlgorithm.values()))).build();
            decoder.setJwtValidator(validator);
            return decoder;
        });
    }

    /** Reads the keys. The DefaultResourceRetriever of Nimbus cannot, from a host such as localhost: it names no host without a dot in the handshake. */
    private static Resource read(RestClient http, URL url) throws IOException {
        try {
            return new Resource(http.get().uri(url.toString()).retrieve().body(String.class), null);
        } catch (RestClientException e) {
            throw new IOException(e);
        }
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
