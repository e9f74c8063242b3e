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
import org.springframework.boot.tomcat.servlet.TomcatServletWebServerFactory;
import org.springframework.boot.web.server.WebServerFactoryCustomizer;
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
 * An API with no Caddy in front: Tomcat asks for the client's certificate, and an access token is good with the certificate that it was
 * issued for alone (Tokens.java).
 */
@SpringBootApplication
public class ApiMtls {
    private static final Logger log = LoggerFactory.getLogger(ApiMtls.class);

    public static void main(String[] args) {
        try {
            var listen = URI.create("//" + System.getenv().getOrDefault("LISTEN", "127.0.0.1:8080")).parseServerAuthority();
            var application = new SpringApplication(ApiMtls.class);
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
            .addFilterBefore(ApiMtls::checkIssuer, BearerTokenAuthenticationFilter.class)
            .sessionManagement(sessions -> sessions.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
            .build();
    }

    /**
     * Asks for a certificate, and takes any: the token says which one it must be. Without this, Tomcat closes the connection unless a CA
     * of its trust store has issued the certificate.
     */
    @Bean
    WebServerFactoryCustomizer<TomcatServletWebServerFactory> anyClientCertificate() {
        return tomcat -> tomcat.addConnectorCustomizers(connector -> {
            for (var host : connector.findSslHostConfigs()) host.setTrustManagerClassName(AnyCertificate.class.getName());
        });
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
