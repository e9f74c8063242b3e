package com.example;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.security.Principal;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.core.NestedExceptionUtils;
import org.springframework.security.authentication.AuthenticationServiceException;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.oauth2.jwt.JwtDecoderInitializationException;
import org.springframework.security.oauth2.server.resource.web.authentication.BearerTokenAuthenticationFilter;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

import static org.springframework.security.config.Customizer.withDefaults;
import static org.springframework.security.oauth2.core.authorization.OAuth2AuthorizationManagers.hasScope;

/**
 * An API that verifies tokens: access tokens of mtls_issuer behind mtls_bearer ("at+jwt"), or the token that forward_token of
 * mtls_auth adds ("gateway+jwt"). Behind Caddy, mtls_bearer has checked that an access token is bound to the client's certificate.
 *
 * <pre>
 * mtls_bearer {
 *     audience https://api.example.com
 * }
 * </pre>
 */
@SpringBootApplication
public class ApiToken {
    private static final Logger log = LoggerFactory.getLogger(ApiToken.class);

    public static void main(String[] args) {
        try {
            var listen = URI.create("//" + System.getenv().getOrDefault("LISTEN", "127.0.0.1:8080")).parseServerAuthority();
            var application = new SpringApplication(ApiToken.class);
            application.setDefaultProperties(Map.of("server.address", listen.getHost(), "server.port", listen.getPort()));
            application.run(args);
        } catch (Exception e) {
            System.err.println(NestedExceptionUtils.getMostSpecificCause(e) + "; check LISTEN and the settings in application.yaml");
            System.exit(1);
        }
    }

    @Bean
    SecurityFilterChain security(HttpSecurity http) {
        return http
            .authorizeHttpRequests(requests -> requests
                .requestMatchers("/invoices").access(hasScope("invoices.read"))
                .anyRequest().authenticated())
            .oauth2ResourceServer(server -> server.jwt(withDefaults()))
            .addFilterBefore(ApiToken::checkIssuer, BearerTokenAuthenticationFilter.class)
            .sessionManagement(sessions -> sessions.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
            .build();
    }

    /** Answers 503 while the issuer's keys cannot be read. Without this, the answer is 401, and the log has a stack trace. */
    private static void checkIssuer(ServletRequest request, ServletResponse response, FilterChain chain) throws IOException, ServletException {
        try {
            chain.doFilter(request, response);
        } catch (AuthenticationServiceException | JwtDecoderInitializationException e) {
            log.error("the issuer's keys cannot be read: {} ({})", e.getCause().getMessage(), NestedExceptionUtils.getMostSpecificCause(e).toString());
            ((HttpServletResponse) response).setStatus(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
        }
    }

    @RestController
    static class Invoices {
        @GetMapping("/")
        String hello(Principal client) {
            return "hello " + client.getName();
        }

        @GetMapping("/invoices")
        String invoices(Principal client) {
            return "invoices of " + client.getName();
        }
    }
}
