//! Verifies access tokens (RFC 9068) with the keys that the issuer publishes. To copy with
//! api-token.rs or api-mtls.rs.
use std::collections::HashMap;
use std::env;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde::Deserialize;
use serde_json::Value;

/// Keys are read again after a minute. If that fails, they are good for four more, because
/// one of them may have been retired.
const FRESH: Duration = Duration::from_secs(60);
const GOOD: Duration = Duration::from_secs(300);
/// A token may name a key that nobody has published: at most one request in this time asks.
const PAUSE: Duration = Duration::from_secs(5);

/// The client that a token was issued to.
#[derive(Clone, Deserialize)]
pub struct Claims {
    pub client_id: String,
    #[serde(default)]
    pub scope: String,
    pub cnf: Option<Confirmation>,
}

/// The certificate that a token is bound to (RFC 8705 §3.1).
#[derive(Clone, Deserialize)]
pub struct Confirmation {
    #[serde(rename = "x5t#S256")]
    pub thumbprint: String,
}

impl Claims {
    pub fn has(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|s| s == scope)
    }
}

/// Why a request is refused (RFC 6750 §3.1).
pub enum Refusal {
    NoToken,
    InvalidToken(String),
    InsufficientScope(&'static str),
    NoKeys,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, challenge) = match self {
            Refusal::NoToken => (StatusCode::UNAUTHORIZED, "Bearer".into()),
            Refusal::InvalidToken(why) => (StatusCode::UNAUTHORIZED, format!(r#"Bearer error="invalid_token", error_description="{why}""#)),
            Refusal::InsufficientScope(scope) => (StatusCode::FORBIDDEN, format!(r#"Bearer error="insufficient_scope", scope="{scope}""#)),
            Refusal::NoKeys => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
        (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }
}

pub struct Verifier {
    issuer: String,
    audience: String,
    token_type: String,
    http: reqwest::Client,
    keys: Mutex<Arc<Keys>>,
    reading: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, (Algorithm, DecodingKey)>,
    read: Option<Instant>,
}

impl Keys {
    fn younger_than(&self, age: Duration) -> bool {
        self.read.is_some_and(|at| at.elapsed() < age)
    }
}

impl Verifier {
    /// Takes ISSUER, AUDIENCE and TOKEN_TYPE from the environment.
    pub fn from_env() -> Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        Ok(Self {
            issuer: env::var("ISSUER").context("ISSUER is not set")?,
            audience: env::var("AUDIENCE").context("AUDIENCE is not set")?,
            token_type: env::var("TOKEN_TYPE").unwrap_or("at+jwt".into()),
            http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            keys: Default::default(),
            reading: Default::default(),
        })
    }

    pub async fn verify(&self, headers: &HeaderMap) -> Result<Claims, Refusal> {
        let token = bearer(headers).ok_or(Refusal::NoToken)?;
        let invalid = |why: &str| Refusal::InvalidToken(why.into());
        let header = decode_header(token).map_err(|_| invalid("not a JWT"))?;
        // or one of another kind, which the same key has signed, would do
        if !header.typ.is_some_and(|typ| typ.eq_ignore_ascii_case(&self.token_type)) {
            return Err(invalid("wrong typ"));
        }
        let (algorithm, key) = self.key(&header.kid.unwrap_or_default()).await?;

        let mut rules = Validation::new(algorithm); // what the key is for, not what the token says
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]); // else a token without them is good
        rules.validate_nbf = true;
        rules.leeway = 10;
        decode(token, &key, &rules).map(|token| token.claims).map_err(|err| Refusal::InvalidToken(err.to_string().replace('"', "'")))
    }

    /// The key of an id, from an answer that is not too old. While it is read again, others
    /// go on with the one they have.
    async fn key(&self, id: &str) -> Result<(Algorithm, DecodingKey), Refusal> {
        let keys = || self.keys.lock().unwrap().clone();
        let known = keys();
        let mut last = match known.by_id.get(id) {
            Some(key) if known.younger_than(FRESH) => return Ok(key.clone()),
            Some(key) if known.younger_than(GOOD) => match self.reading.try_lock() {
                Ok(last) => last,
                Err(_) => return Ok(key.clone()),
            },
            _ => self.reading.lock().await,
        };
        if last.is_none_or(|at| at.elapsed() > PAUSE) {
            match self.read_keys().await {
                Ok(keys) => *self.keys.lock().unwrap() = Arc::new(keys),
                Err(err) => eprintln!("keys not read: {err:#}; check ISSUER and SSL_CERT_FILE"),
            }
            *last = Some(Instant::now());
        }
        let keys = keys();
        if !keys.younger_than(GOOD) {
            return Err(Refusal::NoKeys);
        }
        keys.by_id.get(id).cloned().ok_or(Refusal::InvalidToken("unknown key".into()))
    }

    async fn read_keys(&self) -> Result<Keys> {
        let at = Instant::now();
        let get = async |url: &str| self.http.get(url).send().await?.error_for_status()?.json::<Value>().await;
        let metadata = get(&format!("{}/.well-known/oauth-authorization-server", self.issuer)).await?;
        let set = get(metadata["jwks_uri"].as_str().context("the metadata has no jwks_uri")?).await?;
        let keys = set["keys"].as_array().context("the JWKS has no keys")?;
        // keys of algorithms that jsonwebtoken does not know, as ES512, are left out
        Ok(Keys { by_id: keys.iter().filter_map(usable).collect(), read: Some(at) })
    }
}

fn usable(key: &Value) -> Option<(String, (Algorithm, DecodingKey))> {
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    let algorithm: Algorithm = jwk.common.key_algorithm?.try_into().ok()?;
    let symmetric = matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| !symmetric)?;
    Some((jwk.common.key_id?, (algorithm, key)))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    (values.next().is_none() && scheme.eq_ignore_ascii_case("Bearer")).then_some(token)
}

/// Lets handlers have `client: Claims` as an argument.
impl FromRequestParts<Arc<Verifier>> for Claims {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, verifier: &Arc<Verifier>) -> Result<Self, Refusal> {
        verifier.verify(&parts.headers).await
    }
}
