package com.example;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpRequest;
import org.springframework.http.HttpStatus;
import org.springframework.http.client.ClientHttpRequestExecution;
import org.springframework.http.client.ClientHttpRequestFactory;
import org.springframework.http.client.ClientHttpRequestInterceptor;
import org.springframework.http.client.ClientHttpResponse;
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

/**
 * Adds the access token to requests. Keeps it, renews it when 70 % of its life is over with one request at a time, and gets another one,
 * once, when the API says that it is invalid.
 */
class AccessTokenInterceptor implements ClientHttpRequestInterceptor {
    private static final Logger log = LoggerFactory.getLogger(AccessTokenInterceptor.class);

    private record Token(String value, Instant renewAt, Instant endsAt) {
        boolean isGood(Instant until, String refused) {
            return !value.equals(refused) && Instant.now().isBefore(until);
        }
    }

    private final MtlsProperties properties;
    private final RestClient issuer;
    private final RestClientClientCredentialsTokenResponseClient tokenEndpoint = new RestClientClientCredentialsTokenResponseClient();
    private volatile Token token = new Token("", Instant.MIN, Instant.MIN);
    private FutureTask<Token> renewal;
    private volatile ClientRegistration registration;

    AccessTokenInterceptor(MtlsProperties properties, ClientHttpRequestFactory connections) {
        this.properties = properties;
        issuer = RestClient.builder().requestFactory(connections).build();
        tokenEndpoint.setRestClient(RestClient.builder().requestFactory(connections)
            .configureMessageConverters(converters -> converters
                .addCustomConverter(new FormHttpMessageConverter())
                .addCustomConverter(new OAuth2AccessTokenResponseHttpMessageConverter()))
            .defaultStatusHandler(new OAuth2ErrorResponseErrorHandler())
            .build());
    }

    @Override
    public ClientHttpResponse intercept(HttpRequest request, byte[] body, ClientHttpRequestExecution execution) throws IOException {
        var used = token(null);
        request.getHeaders().setBearerAuth(used);
        var response = execution.execute(request, body);
        var challenge = response.getHeaders().getFirst(HttpHeaders.WWW_AUTHENTICATE);
        if (response.getStatusCode() != HttpStatus.UNAUTHORIZED || challenge == null || !challenge.contains("invalid_token")) return response;
        log.warn("{}: {}; getting another token", request.getURI(), challenge);   // it holds the error id
        response.close();
        request.getHeaders().setBearerAuth(token(used));
        return execution.execute(request, body);
    }

    private String token(String refused) {
        var old = token;
        if (old.isGood(old.renewAt, refused)) return old.value;
        var usable = old.isGood(old.endsAt, refused);
        FutureTask<Token> task;
        synchronized (this) {
            if (token != old) return token(refused);
            var running = renewal != null && !renewal.isDone();
            if (running && usable) return old.value;
            if (!running) renewal = new FutureTask<>(this::requestToken);
            task = renewal;
        }
        task.run();   // by the first caller, the others wait for it
        try {
            return task.get().value;
        } catch (ExecutionException e) {
            if (!usable) throw (RuntimeException) e.getCause();
            log.warn("token not renewed, the old one is used: {}", e.getCause().getMessage());
            synchronized (this) {
                if (token == old) token = new Token(old.value, Instant.now().plusSeconds(5), old.endsAt);
            }
            return old.value;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while waiting for a token", e);
        }
    }

    private Token requestToken() {
        var begin = Instant.now();
        try {
            if (registration == null) registration = discover();
            var answer = tokenEndpoint.getTokenResponse(new OAuth2ClientCredentialsGrantRequest(registration)).getAccessToken();
            var life = Duration.between(answer.getIssuedAt(), answer.getExpiresAt());
            token = new Token(answer.getTokenValue(), begin.plus(life.multipliedBy(7).dividedBy(10)), begin.plus(life).minusSeconds(1));
            log.info("token for {}, expires in {} s", properties.clientId(), life.toSeconds());
            return token;
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
