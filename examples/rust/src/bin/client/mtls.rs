//! Sends requests with a client certificate and the access token bound to it. It renews the
//! token when 70 % of its life is over and once more when an API refuses it, and reads the
//! certificate again when its files have changed. To copy with `identity.rs` and `issuer.rs`.
use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::{sync::watch, time::sleep};

use crate::identity::Identity;
use crate::issuer::unsent;

#[derive(Clone)]
pub struct Settings {
    pub issuer: String,
    pub client_id: String,
    pub scope: String,
    pub certificate: PathBuf, // PEM: the client's own first, then the intermediate CAs
    pub key: PathBuf,
}

impl Settings {
    pub fn read_pem(&self) -> Result<Vec<u8>> {
        let read = |file: &PathBuf| std::fs::read(file).with_context(|| format!("{}: not readable; it must be a PEM file", file.display()));
        Ok([read(&self.certificate)?, read(&self.key)?].join(&b'\n'))
    }
}

pub struct Client(watch::Receiver<Arc<Identity>>);

impl Client {
    /// Must be called in the runtime of tokio, where a task watches the files.
    pub fn new(settings: Settings) -> Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let pem = settings.read_pem()?;
        let (sender, receiver) = watch::channel(Arc::new(Identity::new(settings, pem)?));
        tokio::spawn(replace(sender));
        Ok(Self(receiver))
    }

    /// Sends the request that `build` makes. It makes it again if the API refuses the token.
    pub async fn send(&self, build: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Response> {
        let mut refused = None;
        loop {
            let identity = self.0.borrow().clone();
            let token = identity.token(refused.as_deref()).await?;
            let response = build(&identity.http).bearer_auth(&token).send().await.map_err(unsent)?;
            let again = response.status() == StatusCode::UNAUTHORIZED && challenge(&response).contains("invalid_token");
            if !again || refused.is_some() {
                return Ok(response);
            }
            refused = Some(token);
        }
    }
}

/// Replaces the identity when the files have changed, while there is a client. If they are
/// not usable, for instance because only one of them has been replaced yet, it stays.
async fn replace(sender: watch::Sender<Arc<Identity>>) {
    while !sender.is_closed() {
        sleep(Duration::from_secs(1)).await;
        let current = sender.borrow().clone();
        match current.successor().await {
            Ok(None) => {}
            Ok(Some(new)) => drop(sender.send_replace(Arc::new(new))),
            Err(err) => {
                eprintln!("certificate not replaced, going on with the one in use: {err:#}");
                sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

/// What an API said when it refused a request.
pub fn refusal(response: &Response) -> String {
    format!("{}, {}; give the API's operator the error id", response.status(), challenge(response))
}

fn challenge(response: &Response) -> &str {
    let header = response.headers().get("www-authenticate");
    header.and_then(|value| value.to_str().ok()).unwrap_or("no WWW-Authenticate")
}
