//! Sends requests with a client certificate and the access token bound to it. It renews the
//! token when 70 % of its life is over and once more when an API refuses it, and reads the
//! certificate again when its files have changed.
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;

const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Settings {
    pub issuer: String,
    pub client_id: String,
    pub scope: String,
    pub certificate: PathBuf, // PEM: the client's own first, then the intermediate CAs
    pub key: PathBuf,
}

/// An API refuses a token on a connection with another certificate, and an open connection
/// keeps the certificate it was made with. So a new certificate comes with new connections
/// and a new token.
struct Identity {
    http: reqwest::Client,
    token: Mutex<Option<Token>>,
    renewal: tokio::sync::Mutex<Renewal>,
}

#[derive(Clone)]
struct Token {
    value: String,
    renew_at: Instant,
    ends_at: Instant,
}

/// What whoever renews the token needs to know. Only one request does it at a time.
#[derive(Default)]
struct Renewal {
    endpoint: Option<String>,
    failed: Option<(Instant, String)>,
}

/// What was in the files when they were last read, and when to read them again.
struct Files {
    pem: Result<Vec<u8>, String>,
    next: Instant,
}

pub struct Client {
    settings: Settings,
    identity: Mutex<Arc<Identity>>,
    files: tokio::sync::Mutex<Files>,
}

impl Client {
    pub fn new(settings: Settings) -> Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let pem = settings.read_pem().map_err(|err| anyhow!(err))?;
        let identity = Arc::new(Identity::new(&pem).map_err(|err| anyhow!(err))?);
        let files = Files { pem: Ok(pem), next: Instant::now() };
        Ok(Self { settings, identity: Mutex::new(identity), files: files.into() })
    }

    /// Sends the request that `build` makes. It makes it again if the API refuses the token.
    pub async fn send(&self, build: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Response> {
        let mut refused = None;
        loop {
            let identity = self.identity().await;
            let token = identity.token(&self.settings, refused.as_deref()).await?;
            let response = build(&identity.http).bearer_auth(&token).send().await.map_err(unsent)?;
            let again = response.status() == StatusCode::UNAUTHORIZED && challenge(&response).contains("invalid_token");
            if !again || refused.is_some() {
                return Ok(response);
            }
            refused = Some(token);
        }
    }

    /// The identity of the files, which are read once a second at most. It is replaced by
    /// one that has got a token. Until then, for instance while only one of the files has
    /// been replaced, or the issuer does not know the new certificate yet, it stays.
    async fn identity(&self) -> Arc<Identity> {
        if let Ok(mut files) = self.files.try_lock()
            && files.next <= Instant::now()
        {
            files.next = Instant::now() + Duration::from_secs(1);
            let pem = self.settings.read_pem();
            if pem != files.pem {
                match pem.as_deref().map_err(String::clone).and_then(Identity::new) {
                    Ok(new) => match new.token(&self.settings, None).await {
                        Ok(_) => {
                            *self.identity.lock().unwrap() = Arc::new(new);
                            files.pem = pem;
                        }
                        Err(err) => {
                            eprintln!("no token for the new certificate, keeping the one in use: {err:#}");
                            files.next = Instant::now() + Duration::from_secs(5);
                        }
                    },
                    Err(err) => {
                        eprintln!("{err}; keeping the certificate in use");
                        files.pem = pem;
                    }
                }
            }
        }
        self.identity.lock().unwrap().clone()
    }
}

impl Identity {
    fn new(pem: &[u8]) -> Result<Self, String> {
        let http = reqwest::Identity::from_pem(pem)
            .and_then(|identity| reqwest::Client::builder().identity(identity).timeout(TIMEOUT).build())
            .map_err(|err| format!("certificate and key: {:#}; they must be PEM files of one key pair", Error::from(err)))?;
        Ok(Self { http, token: Default::default(), renewal: Default::default() })
    }

    /// The token, renewed if it is due or has been refused. Callers go on with the old one
    /// while it lasts, except for the one that renews it.
    async fn token(&self, settings: &Settings, refused: Option<&str>) -> Result<String> {
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
        match (self.request_token(settings, &mut renewal).await, old) {
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

    async fn request_token(&self, settings: &Settings, renewal: &mut Renewal) -> Result<Token> {
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

        // taken, so that a failure makes the next request look for it again
        let endpoint = match renewal.endpoint.take() {
            Some(endpoint) => endpoint,
            None => {
                let url = format!("{}/.well-known/oauth-authorization-server", settings.issuer);
                json::<Metadata>(self.http.get(url)).await?.mtls_endpoint_aliases.token_endpoint
            }
        };
        let begin = Instant::now();
        let mut form = vec![("grant_type", "client_credentials"), ("client_id", &settings.client_id)];
        if !settings.scope.is_empty() {
            form.push(("scope", &settings.scope));
        }
        let answer: Answer = json(self.http.post(&endpoint).form(&form)).await?;
        renewal.endpoint = Some(endpoint);
        let life = Duration::from_secs(answer.expires_in);
        Ok(Token {
            value: answer.access_token,
            renew_at: begin + life.mul_f32(0.7),
            ends_at: begin + life.saturating_sub(Duration::from_secs(1)),
        })
    }
}

impl Settings {
    fn read_pem(&self) -> Result<Vec<u8>, String> {
        let read = |file: &PathBuf| fs::read(file).map_err(|err| format!("{}: {err}; it must be a PEM file", file.display()));
        Ok([read(&self.certificate)?, read(&self.key)?].join(&b'\n'))
    }
}

/// Sends a request to the issuer and returns its JSON.
async fn json<T: serde::de::DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let response = request.send().await.map_err(unsent)?;
    let (url, status) = (response.url().clone(), response.status());
    let body = response.bytes().await.with_context(|| url.to_string())?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| anyhow!("{url}: {status}, but not the JSON of an issuer; check ISSUER"));
    }
    match serde_json::from_slice::<serde_json::Value>(&body) {
        // error_description has the error id
        Ok(err) => bail!("{url}: {status}, {}: {}; give the issuer's operator the error id", err["error"], err["error_description"]),
        Err(_) => bail!("{url}: {status}; check ISSUER"),
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

fn unsent(err: reqwest::Error) -> Error {
    anyhow!("{:#}; check the URL, that its server is up, and SSL_CERT_FILE", Error::from(err))
}
