//! Requests tokens.
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use reqwest::RequestBuilder;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::identity::Token;
use crate::mtls::Settings;

#[derive(Default)]
pub struct Issuer {
    token_endpoint: Option<String>, // once its metadata has been read
}

#[derive(Deserialize)]
struct Metadata {
    mtls_endpoint_aliases: Aliases,
}

#[derive(Deserialize)]
struct Aliases {
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: u64,
}

impl Issuer {
    pub async fn request_token(&mut self, http: &reqwest::Client, settings: &Settings) -> Result<Token> {
        // taken, so that a failure makes the next request look for it again
        let endpoint = match self.token_endpoint.take() {
            Some(endpoint) => endpoint,
            None => {
                let url = format!("{}/.well-known/oauth-authorization-server", settings.issuer);
                json::<Metadata>(http.get(url)).await?.mtls_endpoint_aliases.token_endpoint
            }
        };
        let begin = Instant::now();
        let mut form = vec![("grant_type", "client_credentials"), ("client_id", &settings.client_id)];
        if !settings.scope.is_empty() {
            form.push(("scope", &settings.scope));
        }
        let answer: Answer = json(http.post(&endpoint).form(&form)).await?;
        self.token_endpoint = Some(endpoint);
        let life = Duration::from_secs(answer.expires_in);
        Ok(Token {
            value: answer.access_token,
            renew_at: begin + life.mul_f32(0.7),
            ends_at: begin + life.saturating_sub(Duration::from_secs(1)),
        })
    }
}

/// Sends a request to the issuer and returns its JSON.
async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let response = request.send().await.map_err(unsent)?;
    let (url, status) = (response.url().clone(), response.status());
    let body = response.bytes().await.with_context(|| url.to_string())?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| anyhow!("{url}: {status}, but not the JSON of an issuer; check ISSUER"));
    }
    match serde_json::from_slice::<Value>(&body) {
        // error_description has the error id
        Ok(err) => bail!("{url}: {status}, {}: {}; give the issuer's operator the error id", err["error"], err["error_description"]),
        Err(_) => bail!("{url}: {status}; check ISSUER"),
    }
}

pub fn unsent(err: reqwest::Error) -> Error {
    anyhow!("{:#}; check the URL, that its server is up, and SSL_CERT_FILE", Error::from(err))
}
