package com.example;

import java.net.URI;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.CommandLineRunner;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.condition.ConditionalOnNotWebApplication;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.context.annotation.Bean;
import org.springframework.http.HttpStatus;
import org.springframework.stereotype.Component;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestClientException;

/**
 * A Spring Boot application that calls an API as an OAuth 2.0 client with a certificate: a service, or, without LISTEN, one call.
 * Settings: application.yaml.
 */
@SpringBootApplication
@EnableConfigurationProperties(MtlsProperties.class)
public class ClientApplication {
    public static void main(String[] args) {
        try {
            var application = new SpringApplication(ClientApplication.class);
            if (System.getenv("LISTEN") == null) {
                application.setWebApplicationType(WebApplicationType.NONE);
                application.setDefaultProperties(Map.of("logging.level.root", "error"));
            } else {
                var listen = URI.create("//" + System.getenv("LISTEN")).parseServerAuthority();
                application.setDefaultProperties(Map.of("server.address", listen.getHost(), "server.port", listen.getPort()));
            }
            application.run(args);
        } catch (Exception e) {
            System.err.println(MtlsException.line(e));
            System.exit(1);
        }
    }

    /** Knows nothing of certificates and tokens. */
    @Component
    record InvoicesApi(MtlsRestClient mtls, @Value("${api.url}") String url) {
        String get() {
            try {
                return mtls.get().get().uri(url).retrieve().body(String.class);
            } catch (RestClientException e) {
                throw new MtlsException(url, e, "check API and SSL_CERT_FILE; the API's operator can look up an error id");
            }
        }
    }

    @Bean
    @ConditionalOnNotWebApplication
    CommandLineRunner once(InvoicesApi api) {
        return args -> System.out.println(api.get());
    }

    @RestController
    record Service(InvoicesApi api) {
        @GetMapping("/")
        String get() {
            return api.get();
        }

        @ExceptionHandler
        @ResponseStatus(HttpStatus.BAD_GATEWAY)
        String failed(MtlsException e) {
            return e.getMessage();
        }
    }
}
