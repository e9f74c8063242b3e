package com.example;

import java.io.IOException;
import java.time.Instant;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.HttpHeaders;
import org.springframework.http.HttpRequest;
import org.springframework.http.HttpStatus;
import org.springframework.http.client.ClientHttpRequestExecution;
import org.springframework.http.client.ClientHttpRequestInterceptor;
import org.springframework.http.client.ClientHttpResponse;

/**
 * Adds the access token to requests. Keeps it, renews it when 70 % of its life is over with one request at a time, and gets another one,
 * once, when the API says that it is invalid.
 */
class AccessTokenInterceptor implements ClientHttpRequestInterceptor {
    private static final Logger log = LoggerFactory.getLogger(AccessTokenInterceptor.class);

    private final TokenEndpoint issuer;
    private volatile Token token = new Token("", Instant.MIN, Instant.MIN);
    private FutureTask<Token> renewal;

    AccessTokenInterceptor(TokenEndpoint issuer) {
        this.issuer = issuer;
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
        if (old.isGood(old.renewAt(), refused)) return old.value();
        var usable = old.isGood(old.endsAt(), refused);
        FutureTask<Token> task;
        synchronized (this) {
            if (token != old) return token(refused);
            var running = renewal != null && !renewal.isDone();
            if (running && usable) return old.value();
            if (!running) renewal = new FutureTask<>(() -> token = issuer.requestToken());
            task = renewal;
        }
        task.run();   // by the first caller, the others wait for it
        try {
            return task.get().value();
        } catch (ExecutionException e) {
            if (!usable) throw (RuntimeException) e.getCause();
            log.warn("token not renewed, the old one is used: {}", e.getCause().getMessage());
            synchronized (this) {
                if (token == old) token = new Token(old.value(), Instant.now().plusSeconds(5), old.endsAt());
            }
            return old.value();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while waiting for a token", e);
        }
    }
}
