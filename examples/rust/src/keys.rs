//! The keys that an issuer publishes.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, DecodingKey, jwk::Jwk};
use serde_json::Value;

use crate::Refusal;

/// Keys are read again after a minute. If that fails, they are good for four more, because
/// one of them may have been retired.
const FRESH: Duration = Duration::from_secs(60);
const GOOD: Duration = Duration::from_secs(300);
/// A token may name a key that nobody has published: at most one request in this time asks.
const PAUSE: Duration = Duration::from_secs(5);

pub struct Keys {
    issuer: String,
    http: reqwest::Client,
    published: Mutex<Arc<Published>>,
    reading: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Published {
    by_id: HashMap<String, (Algorithm, DecodingKey)>,
    read: Option<Instant>,
}

impl Published {
    fn younger_than(&self, age: Duration) -> bool {
        self.read.is_some_and(|at| at.elapsed() < age)
    }
}

impl Keys {
    pub fn new(issuer: String) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { issuer, http, published: Default::default(), reading: Default::default() })
    }

    /// The key of an id, from an answer that is not too old. While it is read again, others
    /// go on with the one they have.
    pub async fn get(&self, id: &str) -> Result<(Algorithm, DecodingKey), Refusal> {
        let keys = || self.published.lock().unwrap().clone();
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
            match self.read().await {
                Ok(keys) => *self.published.lock().unwrap() = Arc::new(keys),
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

    async fn read(&self) -> Result<Published> {
        let at = Instant::now();
        let get = async |url: &str| self.http.get(url).send().await?.error_for_status()?.json::<Value>().await;
        let metadata = get(&format!("{}/.well-known/oauth-authorization-server", self.issuer)).await?;
        let set = get(metadata["jwks_uri"].as_str().context("the metadata has no jwks_uri")?).await?;
        let keys = set["keys"].as_array().context("the JWKS has no keys")?;
        // keys of algorithms that jsonwebtoken does not know, as ES512, are left out
        Ok(Published { by_id: keys.iter().filter_map(usable).collect(), read: Some(at) })
    }
}

fn usable(key: &Value) -> Option<(String, (Algorithm, DecodingKey))> {
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    let algorithm: Algorithm = jwk.common.key_algorithm?.try_into().ok()?;
    let symmetric = matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| !symmetric)?;
    Some((jwk.common.key_id?, (algorithm, key)))
}
