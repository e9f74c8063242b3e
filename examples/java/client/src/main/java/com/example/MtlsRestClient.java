package com.example;

import java.security.KeyStore;
import java.security.KeyStoreException;
import java.time.Duration;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.http.client.ClientHttpRequestFactoryBuilder;
import org.springframework.boot.http.client.HttpClientSettings;
import org.springframework.boot.ssl.SslBundle;
import org.springframework.boot.ssl.SslBundles;
import org.springframework.boot.ssl.SslStoreBundle;
import org.springframework.stereotype.Component;
import org.springframework.web.client.RestClient;

/**
 * Has the RestClient whose requests carry the client certificate and an access token. A token is refused on a connection with another
 * certificate, and an open connection keeps the one it was made with. So when the certificate's file changes, there is a new RestClient,
 * with new connections and a new token. Requests in flight end with the old one.
 */
@Component
class MtlsRestClient {
    private static final Logger log = LoggerFactory.getLogger(MtlsRestClient.class);

    private static final Duration TIMEOUT = Duration.ofSeconds(10);

    private final MtlsProperties properties;
    private final String file;
    private final KeyStore servers;
    private volatile RestClient restClient;

    MtlsRestClient(MtlsProperties properties, SslBundles bundles, @Value("${spring.ssl.bundle.jks.client.keystore.location}") String file) {
        this.properties = properties;
        this.file = file;
        this.servers = bundles.getBundle("servers").getStores().getTrustStore();
        this.restClient = create(bundles.getBundle("client"));
        bundles.addBundleUpdateHandler("client", this::replace);
    }

    /** Returns the RestClient for the next request. Do not keep it. */
    RestClient get() {
        return restClient;
    }

    private void replace(SslBundle client) {
        try {
            restClient = create(client);
            log.info("certificate replaced: {}", file);
        } catch (MtlsException e) {
            log.error("certificate not usable, the one in use is kept: {}", e.getMessage());
        }
    }

    private RestClient create(SslBundle client) {
        var connections = ClientHttpRequestFactoryBuilder.jdk().build(HttpClientSettings.ofSslBundle(withTrustStore(client)).withTimeouts(TIMEOUT, TIMEOUT));
        var tokens = new AccessTokenInterceptor(new TokenEndpoint(properties, connections));
        return RestClient.builder().requestFactory(connections).requestInterceptor(tokens).build();
    }

    private SslBundle withTrustStore(SslBundle client) {
        try {
            var keys = client.getStores().getKeyStore();
            if (keys == null || keys.size() == 0) throw new KeyStoreException("no private key in the key store");   // Java would send no certificate
            return SslBundle.of(SslStoreBundle.of(keys, client.getStores().getKeyStorePassword(), servers));
        } catch (KeyStoreException | IllegalStateException e) {
            throw new MtlsException(file, e, "check PKCS12 and PASSWORD");
        }
    }
}
