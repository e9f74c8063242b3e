package com.example;

import jakarta.servlet.http.HttpServletRequest;
import java.net.URI;
import java.security.Principal;
import java.util.Collections;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.core.NestedExceptionUtils;
import org.springframework.http.HttpStatus;
import org.springframework.security.authentication.AuthenticationManager;
import org.springframework.security.authentication.ProviderManager;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.core.authority.AuthorityUtils;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.authentication.HttpStatusEntryPoint;
import org.springframework.security.web.authentication.preauth.AbstractPreAuthenticatedProcessingFilter;
import org.springframework.security.web.authentication.preauth.PreAuthenticatedAuthenticationProvider;
import org.springframework.security.web.authentication.preauth.PreAuthenticatedGrantedAuthoritiesUserDetailsService;
import org.springframework.security.web.authentication.preauth.PreAuthenticatedGrantedAuthoritiesWebAuthenticationDetails;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/**
 * An API behind mtls_auth or mtls_bearer that takes the client from the headers Caddy sets. It must be reachable through Caddy only.
 *
 * <pre>
 * mtls_auth {
 *     header_up X-Client-ID {http.mtls.client_id}
 *     header_up X-Client-Scope {http.mtls.scope}
 * }
 * </pre>
 */
@SpringBootApplication
public class ApiHeaders {
    public static void main(String[] args) {
        try {
            var listen = URI.create("//" + System.getenv().getOrDefault("LISTEN", "127.0.0.1:8080")).parseServerAuthority();
            var application = new SpringApplication(ApiHeaders.class);
            application.setDefaultProperties(Map.of("server.address", listen.getHost(), "server.port", listen.getPort()));
            application.run(args);
        } catch (Exception e) {
            System.err.println(NestedExceptionUtils.getMostSpecificCause(e) + "; check LISTEN and the settings in application.yaml");
            System.exit(1);
        }
    }

    @Bean
    SecurityFilterChain security(HttpSecurity http, AuthenticationManager clients) {
        return http
            .addFilter(new CaddyFilter(clients))
            .authorizeHttpRequests(requests -> requests
                .requestMatchers("/invoices").hasAuthority("SCOPE_invoices.read")
                .anyRequest().authenticated())
            .exceptionHandling(errors -> errors.authenticationEntryPoint(new HttpStatusEntryPoint(HttpStatus.UNAUTHORIZED)))
            .sessionManagement(sessions -> sessions.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
            .csrf(csrf -> csrf.disable())   // programs call this API, and no browser
            .build();
    }

    @Bean
    AuthenticationManager clients() {
        var provider = new PreAuthenticatedAuthenticationProvider();
        provider.setPreAuthenticatedUserDetailsService(new PreAuthenticatedGrantedAuthoritiesUserDetailsService());
        return new ProviderManager(provider);
    }

    /** Takes X-Client-ID as the principal, and the scopes of X-Client-Scope as its authorities. */
    static class CaddyFilter extends AbstractPreAuthenticatedProcessingFilter {
        CaddyFilter(AuthenticationManager clients) {
            setAuthenticationManager(clients);
            setAuthenticationDetailsSource(request -> new PreAuthenticatedGrantedAuthoritiesWebAuthenticationDetails(request,
                AuthorityUtils.createAuthorityList(scopes(request))));
        }

        @Override
        protected Object getPreAuthenticatedPrincipal(HttpServletRequest request) {
            var ids = Collections.list(request.getHeaders("X-Client-ID"));
            return ids.size() == 1 && !ids.get(0).isEmpty() ? ids.get(0) : null;
        }

        @Override
        protected Object getPreAuthenticatedCredentials(HttpServletRequest request) {
            return "";   // Caddy has checked the certificate
        }

        private static String[] scopes(HttpServletRequest request) {
            var scopes = request.getHeader("X-Client-Scope");
            return scopes == null ? new String[0] : ("SCOPE_" + scopes.trim().replaceAll(" +", " SCOPE_")).split(" ");
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
