package com.example;

import java.security.Principal;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

import static org.springframework.security.config.Customizer.withDefaults;
import static org.springframework.security.oauth2.core.authorization.OAuth2AuthorizationManagers.hasScope;

/**
 * An API that verifies tokens: access tokens of mtls_issuer behind mtls_bearer ("at+jwt"), or the token that forward_token of
 * mtls_auth adds ("gateway+jwt"). Behind Caddy, mtls_bearer has checked that an access token is bound to the client's certificate.
 */
@SpringBootApplication
public class ApiToken {
    public static void main(String[] args) {
        SpringApplication.run(ApiToken.class, args);
    }

    @Bean
    SecurityFilterChain security(HttpSecurity http) {
        return http
            .authorizeHttpRequests(requests -> requests
                .requestMatchers("/invoices").access(hasScope("invoices.read"))
                .anyRequest().authenticated())
            .oauth2ResourceServer(server -> server.jwt(withDefaults()))
            .sessionManagement(sessions -> sessions.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
            .build();
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
