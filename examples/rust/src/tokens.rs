//! Verifies access tokens (RFC 9068) with the keys that the issuer publishes. To copy with
//! `keys.rs`, `refusal.rs`, and api-token.rs or api-mtls.rs.
mod keys;
mod refusal;

use std::{env, sync::Arc};

use anyhow::{Context, Result};
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use keys::Keys;
pub use refusal::Refusal;

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

pub struct Verifier {
    issuer: String,
    audience: String,
    token_type: String,
    keys: Keys,
}

impl Verifier {
    /// Takes ISSUER, AUDIENCE and TOKEN_TYPE from the environment.
    pub fn from_env() -> Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let issuer = env::var("ISSUER").context("ISSUER is not set")?;
        Ok(Self {
            keys: Keys::new(issuer.clone())?,
            issuer,
            audience: env::var("AUDIENCE").context("AUDIENCE is not set")?,
            token_type: env::var("TOKEN_TYPE").unwrap_or("at+jwt".into()),
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
        let (algorithm, key) = self.keys.get(&header.kid.unwrap_or_default()).await?;

        let mut rules = Validation::new(algorithm); // what the key is for, not what the token says
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]); // else a token without them is good
        rules.validate_nbf = true;
        rules.leeway = 10;
        decode(token, &key, &rules).map(|token| token.claims).map_err(|err| Refusal::InvalidToken(err.to_string().replace('"', "'")))
    }
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
