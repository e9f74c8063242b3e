//! An API with no Caddy in front: it asks for the client's certificate itself, and a token
//! is good with the certificate it was issued for alone (RFC 8705 §3).
use std::{env, net::ToSocketAddrs, sync::Arc};

use anyhow::{Context, Result};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::{Router, routing::get};
use axum_server::{tls::TlsInfo, tls_rustls::RustlsConfig};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use tokens::{Claims, Refusal, Verifier};

/// A client whose token is bound to the certificate of its connection.
struct Client(Claims);

impl FromRequestParts<Arc<Verifier>> for Client {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, verifier: &Arc<Verifier>) -> Result<Self, Refusal> {
        let claims = verifier.verify(&parts.headers).await?;
        let certificate = parts.extensions.get::<Arc<TlsInfo>>().and_then(|tls| tls.peer_certificates.first());
        let thumbprint = certificate.map(|der| BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(der)));
        let bound = claims.cnf.as_ref().map(|cnf| &cnf.thumbprint);
        if thumbprint.is_none() || thumbprint.as_ref() != bound {
            return Err(Refusal::InvalidToken("bound to another certificate".into()));
        }
        Ok(Client(claims))
    }
}

/// Takes any certificate, because the token says which one it must be. The client proves
/// that it has the certificate's key.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

#[rustfmt::skip]
impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool { false }
    fn root_hint_subjects(&self) -> &[DistinguishedName] { &[] }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> { self.0.supported_schemes() }

    fn verify_client_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }
    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }
}

#[tokio::main]
async fn main() {
    if let Err(err) = serve().await {
        eprintln!("{err:#}; check TLS_CERTIFICATE, TLS_KEY and the other settings");
        std::process::exit(1);
    }
}

async fn serve() -> Result<()> {
    let var = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let verifier = Verifier::from_env()?;
    let any = AnyCertificate(ring::default_provider().signature_verification_algorithms);
    let (certificate, key) = (var("TLS_CERTIFICATE")?, var("TLS_KEY")?);
    let chain = CertificateDer::pem_file_iter(&certificate).and_then(Iterator::collect).context(certificate)?;
    let key = PrivateKeyDer::from_pem_file(&key).context(key)?;
    let mut tls = ServerConfig::builder().with_client_cert_verifier(Arc::new(any)).with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];

    let address = var("LISTEN")?.to_socket_addrs()?.next().context("LISTEN has no address")?;
    let app = Router::new().route("/", get(hello)).route("/invoices", get(invoices)).with_state(Arc::new(verifier));
    Ok(axum_server::bind_rustls(address, RustlsConfig::from_config(Arc::new(tls))).serve(app.into_make_service()).await?)
}

async fn hello(Client(client): Client) -> String {
    format!("hello {}", client.client_id)
}

async fn invoices(Client(client): Client) -> Result<String, Refusal> {
    if !client.has("invoices.read") {
        return Err(Refusal::InsufficientScope("invoices.read"));
    }
    Ok(format!("invoices of {}", client.client_id))
}
