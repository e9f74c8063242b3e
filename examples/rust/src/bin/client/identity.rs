//! A certificate with its connections and its token.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow, bail};

use crate::issuer::Issuer;
use crate::mtls::Settings;

/// An API refuses a token on a connection with another certificate, and an open connection
/// keeps the certificate it was made with. So a new certificate comes with new connections
/// and a new token.
pub struct Identity {
    pub http: reqwest::Client,
    settings: Settings,
    pem: Vec<u8>,
    token: Mutex<Option<Token>>,
    renewal: tokio::sync::Mutex<Renewal>,
}

#[derive(Clone)]
pub struct Token {
    pub value: String,
    pub renew_at: Instant,
    pub ends_at: Instant,
}

/// What whoever renews the token needs to know. Only one request does it at a time.
#[derive(Default)]
struct Renewal {
    issuer: Issuer,
    failed: Option<(Instant, String)>,
}

impl Identity {
    pub fn new(settings: Settings, pem: Vec<u8>) -> Result<Self> {
        let http = reqwest::Identity::from_pem(&pem)
            .and_then(|identity| reqwest::Client::builder().identity(identity).timeout(Duration::from_secs(10)).build())
            .map_err(|err| anyhow!("certificate and key: {:#}; they must be PEM files of one key pair", Error::from(err)))?;
        Ok(Self { http, settings, pem, token: Default::default(), renewal: Default::default() })
    }

    /// If the files have changed, the identity of the new ones, with a token.
    pub async fn successor(&self) -> Result<Option<Self>> {
        let pem = self.settings.read_pem()?;
        if pem == self.pem {
            return Ok(None);
        }
        let new = Self::new(self.settings.clone(), pem)?;
        new.token(None).await?;
        Ok(Some(new))
    }

    /// The token, renewed if it is due or has been refused. Callers go on with the old one
    /// while it lasts, except for the one that renews it.
    pub async fn token(&self, refused: Option<&str>) -> Result<String> {
        let asked = Instant::now();
        let current = || self.token.lock().unwrap().clone().filter(|token| refused != Some(&token.value) && asked < token.ends_at);
        let old = current();
        let mut renewal = match &old {
            Some(token) if asked < token.renew_at => return Ok(token.value.clone()),
            Some(token) => match self.renewal.try_lock() {
                Ok(renewal) => renewal,
                Err(_) => return Ok(token.value.clone()),
            },
            None => self.renewal.lock().await,
        };
        // somebody else may have renewed it meanwhile, or failed to
        if let Some(token) = current().filter(|token| asked < token.renew_at) {
            return Ok(token.value);
        }
        if let Some((at, err)) = &renewal.failed
            && *at > asked
        {
            bail!(err.clone());
        }
        match (renewal.issuer.request_token(&self.http, &self.settings).await, old) {
            (Ok(token), _) => {
                *self.token.lock().unwrap() = Some(token.clone());
                Ok(token.value)
            }
            (Err(err), Some(old)) => {
                eprintln!("token not renewed, using the old one: {err:#}");
                *self.token.lock().unwrap() = Some(Token { renew_at: Instant::now() + Duration::from_secs(5), ..old.clone() });
                Ok(old.value)
            }
            (Err(err), None) => {
                renewal.failed = Some((Instant::now(), format!("{err:#}")));
                Err(err)
            }
        }
    }
}
