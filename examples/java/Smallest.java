// The smallest client: the JDK alone, and no project. PKCS12 names a file with the key, the certificate and its intermediate CAs.
//
//   ISSUER=... CLIENT_ID=... PKCS12=... PASSWORD=... API=... java Smallest.java
import java.io.FileInputStream;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import javax.net.ssl.*;

import static java.nio.charset.StandardCharsets.UTF_8;

class Smallest {
    public static void main(String[] args) {
        try {
            var http = HttpClient.newBuilder().sslContext(tls(setting("PKCS12"), setting("PASSWORD").toCharArray())).build();

            var metadata = send(http, request(setting("ISSUER") + "/.well-known/oauth-authorization-server"));
            var endpoint = member("mtls_endpoint_aliases\"[^}]*\"token_endpoint", metadata);   // the JDK has no JSON parser

            var form = "grant_type=client_credentials&client_id=" + URLEncoder.encode(setting("CLIENT_ID"), UTF_8);
            if (System.getenv("SCOPE") != null) form += "&scope=" + URLEncoder.encode(setting("SCOPE"), UTF_8);
            var token = member("access_token", send(http, request(endpoint)
                .header("Content-Type", "application/x-www-form-urlencoded").POST(HttpRequest.BodyPublishers.ofString(form))));

            System.out.println(send(http, request(setting("API")).header("Authorization", "Bearer " + token)).body());
        } catch (Exception e) {
            System.err.println(e.getMessage());
            System.exit(1);
        }
    }

    static HttpRequest.Builder request(String url) throws Exception {
        try {
            return HttpRequest.newBuilder(URI.create(url));
        } catch (IllegalArgumentException e) {
            throw new Exception(url + ": " + e.getMessage() + "; check ISSUER and API");
        }
    }

    static HttpResponse<String> send(HttpClient http, HttpRequest.Builder request) throws Exception {
        var uri = request.build().uri();
        HttpResponse<String> response;
        try {
            response = http.sendAsync(request.build(), HttpResponse.BodyHandlers.ofString()).get(10, TimeUnit.SECONDS);
        } catch (Exception e) {
            throw new Exception(uri + ": " + (e.getCause() == null ? e : e.getCause()) + "; check the URL, and SSL_CERT_FILE if the server's CA is private");
        }
        if (response.statusCode() == 200) return response;
        var reason = response.body().lines().findFirst().orElse("");   // it holds the error id
        throw new Exception(uri + ": " + response.statusCode() + " " + reason + "; the server's operator can look up the error id");
    }

    static String member(String name, HttpResponse<String> response) throws Exception {
        var value = Pattern.compile("\"" + name + "\"\\s*:\\s*\"([^\"]+)\"").matcher(response.body());
        if (value.find()) return value.group(1);
        throw new Exception(response.uri() + ": the answer has no " + name.replaceAll(".*\"", "") + "; check ISSUER");
    }

    static SSLContext tls(String file, char[] password) throws Exception {
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        try (var in = new FileInputStream(file)) {
            var store = KeyStore.getInstance("PKCS12");
            store.load(in, password);
            if (store.size() == 0) throw new Exception("no private key in it");   // the JDK would send no certificate
            keys.init(store, password);
        } catch (Exception e) {
            throw new Exception(file + ": " + e.getMessage() + "; check PKCS12 and PASSWORD");
        }
        var servers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        servers.init(cas(System.getenv("SSL_CERT_FILE")));
        var context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), servers.getTrustManagers(), null);
        return context;
    }

    /** Returns the CAs of a PEM file, or null, which stands for those of the JDK. */
    static KeyStore cas(String file) throws Exception {
        if (file == null) return null;
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var in = new FileInputStream(file)) {
            for (var ca : CertificateFactory.getInstance("X.509").generateCertificates(in)) store.setCertificateEntry("ca" + store.size(), ca);
        }
        return store;
    }

    static String setting(String name) throws Exception {
        if (System.getenv(name) == null) throw new Exception(name + " is not set; see the top of Smallest.java");
        return System.getenv(name);
    }
}
