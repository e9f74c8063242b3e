package com.example;

import java.security.Principal;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import javax.net.ssl.X509TrustManager;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.tomcat.servlet.TomcatServletWebServerFactory;
import org.springframework.boot.web.server.WebServerFactoryCustomizer;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
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
    public static void main(String[] args) {
        SpringApplication.run(ApiMtls.class, args);
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

    /** Accepts every client certificate. The TLS handshake has proven that the client has its key. */
    public static class AnyCertificate implements X509TrustManager {
        @Override
        public void checkClientTrusted(X509Certificate[] chain, String type) {
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String type) throws CertificateException {
            throw new CertificateException("clients alone are accepted");
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            return new X509Certificate[0];
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
