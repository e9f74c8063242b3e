package com.example;

import org.springframework.boot.context.properties.ConfigurationProperties;

@ConfigurationProperties("mtls")
record MtlsProperties(String issuer, String clientId, String scope) {
}
