//! The smallest client: gets an access token with a client certificate and calls an API
//! with it. Rust has no HTTP in its standard library, so this is reqwest, blocking.
use std::{env, fs, time::Duration};

use anyhow::{Context, Error, Result, anyhow, bail};
use reqwest::blocking::{Client, Response};
use serde_json::Value;

fn main() {
    if let Err(err) = call() {
        eprintln!("{err:#}");
        std::process::exit(1);
    }
}

fn call() -> Result<()> {
    let var = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let read = |name: &str| {
        let file = var(name)?;
        fs::read(&file).map_err(|err| anyhow!("{file}: {err}; {name} must be a PEM file"))
    };

    rustls::crypto::ring::default_provider().install_default().ok();
    let pem = [read("CERTIFICATE")?, read("KEY")?].join(&b'\n');
    let http = reqwest::Identity::from_pem(&pem)
        .and_then(|identity| Client::builder().identity(identity).timeout(Duration::from_secs(10)).build())
        .map_err(|err| anyhow!("CERTIFICATE and KEY: {:#}; they must be PEM files of one key pair", Error::from(err)))?;

    let issuer = var("ISSUER")?;
    let metadata = json(http.get(format!("{issuer}/.well-known/oauth-authorization-server")).send())?;
    let endpoint =
        metadata["mtls_endpoint_aliases"]["token_endpoint"].as_str().context("no mtls_endpoint_aliases in the metadata; check ISSUER")?;
    let form = [("grant_type", "client_credentials"), ("client_id", &var("CLIENT_ID")?), ("scope", &env::var("SCOPE").unwrap_or_default())];
    let answer = json(http.post(endpoint).form(&form).send())?;
    let token = answer["access_token"].as_str().context("no access_token in the answer; check ISSUER")?;

    let response = sent(http.get(var("API")?).bearer_auth(token).send())?;
    if !response.status().is_success() {
        // WWW-Authenticate has the error id
        let challenge = response.headers().get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or("");
        bail!("{}: {} {challenge}; give the API's operator the error id", response.url(), response.status());
    }
    println!("{}", response.text()?);
    Ok(())
}

fn sent(result: reqwest::Result<Response>) -> Result<Response> {
    result.map_err(|err| anyhow!("{:#}; check the URL, that its server is up, and SSL_CERT_FILE", Error::from(err)))
}

fn json(result: reqwest::Result<Response>) -> Result<Value> {
    let response = sent(result)?;
    let (url, status) = (response.url().to_string(), response.status());
    match response.json::<Value>() {
        Ok(answer) if status.is_success() => Ok(answer),
        // error_description has the error id
        Ok(answer) => bail!("{url}: {status} {answer}; give the issuer's operator the error id"),
        Err(_) => bail!("{url}: {status}, and no JSON; check ISSUER"),
    }
}
