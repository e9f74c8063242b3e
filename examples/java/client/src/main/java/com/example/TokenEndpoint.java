package com.example;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.time.Duration;
import java.time.Instant;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.client.ClientHttpRequestFactory;
import org.springframework.http.converter.FormHttpMessageConverter;
import org.springframework.security.oauth2.client.endpoint.OAuth2ClientCredentialsGrantRequest;
import org.springframework.security.oauth2.client.endpoint.RestClientClientCredentialsTokenResponseClient;
import org.springframework.security.oauth2.client.http.OAuth2ErrorResponseErrorHandler;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.core.http.converter.OAuth2AccessTokenResponseHttpMessageConverter;
import org.springframework.util.StringUtils;
import org.springframework.web.client.RestClient;
import org.springframework.web.client.RestClientException;

/** Requests access tokens, at the token endpoint for clients with a certificate that the issuer's metadata names. */
class TokenEndpoint {
    private static final Logger log = LoggerFactory.getLogger(TokenEndpoint.class);

    private final MtlsProperties properties;
    private final RestClient issuer;
    private final RestClientClientCredentialsTokenResponseClient tokenEndpoint = new RestClientClientCredentialsTokenResponseClient();
    private volatile ClientRegistration registration;

    TokenEndpoint(MtlsProperties properties, ClientHttpRequestFactory connections) {
        this.properties = properties;
        issuer = RestClient.builder().requestFactory(connections).build();
        tokenEndpoint.setRestClient(RestClient.builder().requestFactory(connections)
            .configureMessageConverters(converters -> converters
                .addCustomConverter(new FormHttpMessageConverter())
                .addCustomConverter(new OAuth2AccessTokenResponseHttpMessageConverter()))
            .defaultStatusHandler(new OAuth2ErrorResponseErrorHandler())
            .build());
    }

    Token requestToken() {
        var begin = Instant.now();
        try {
            if (registration == null) registration = discover();
            var answer = tokenEndpoint.getTokenResponse(new OAuth2ClientCredentialsGrantRequest(registration)).getAccessToken();
            var life = Duration.between(answer.getIssuedAt(), answer.getExpiresAt());
            log.info("token for {}, expires in {} s", properties.clientId(), life.toSeconds());
            return new Token(answer.getTokenValue(), begin.plus(life.multipliedBy(7).dividedBy(10)), begin.plus(life).minusSeconds(1));
        } catch (RuntimeException e) {
            registration = null;   // perhaps the endpoint has moved
            throw new MtlsException("no token from " + properties.issuer(), e,
                "check ISSUER, CLIENT_ID, SCOPE and the certificate; the issuer's operator can look up an error id");
        }
    }

    private ClientRegistration discover() {
        var metadata = issuer.get().uri(properties.issuer() + "/.well-known/oauth-authorization-server").retrieve().body(Metadata.class);
        if (metadata == null || !properties.issuer().equals(metadata.issuer()) || metadata.aliases() == null)
            throw new RestClientException("its metadata is of another issuer, or has no mtls_endpoint_aliases");
        return ClientRegistration.withRegistrationId("mtls").clientId(properties.clientId())
            .authorizationGrantType(AuthorizationGrantType.CLIENT_CREDENTIALS)
            .clientAuthenticationMethod(ClientAuthenticationMethod.NONE)   // that is, client_id in the form; the certificate authenticates the client
            .tokenUri(metadata.aliases().tokenEndpoint())
            .scope(StringUtils.delimitedListToStringArray(properties.scope(), " "))
            .build();
    }

    private record Metadata(String issuer, @JsonProperty("mtls_endpoint_aliases") Aliases aliases) {
        private record Aliases(@JsonProperty("token_endpoint") String tokenEndpoint) {
        }
    }
}
