//! Calls an API as an OAuth 2.0 client with a certificate: once, or with LISTEN, for each
//! request to a service of its own. The other files are the part to copy.
mod identity;
mod issuer;
mod mtls;

use std::{env, sync::Arc};

use anyhow::{Context, Result, bail};
use axum::{Router, extract::State, http::StatusCode, routing::get};

struct Invoices {
    client: mtls::Client,
    url: String,
}

impl Invoices {
    async fn get(&self) -> Result<String> {
        let response = self.client.send(|http| http.get(&self.url)).await?;
        if !response.status().is_success() {
            bail!("{}: {}", self.url, mtls::refusal(&response));
        }
        Ok(response.text().await?)
    }
}

#[tokio::main]
async fn main() {
    if let Err(err) = run().await {
        eprintln!("{err:#}");
        std::process::exit(1);
    }
}

async fn run() -> Result<()> {
    let var = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let client = mtls::Client::new(mtls::Settings {
        issuer: var("ISSUER")?,
        client_id: var("CLIENT_ID")?,
        scope: env::var("SCOPE").unwrap_or_default(),
        certificate: var("CERTIFICATE")?.into(),
        key: var("KEY")?.into(),
    })?;
    let invoices = Invoices { client, url: var("API")? };

    let Ok(address) = env::var("LISTEN") else {
        println!("{}", invoices.get().await?);
        return Ok(());
    };
    let listener = tokio::net::TcpListener::bind(&address).await.with_context(|| format!("LISTEN={address}"))?;
    let app = Router::new().route("/", get(index)).with_state(Arc::new(invoices));
    Ok(axum::serve(listener, app).await?)
}

async fn index(State(invoices): State<Arc<Invoices>>) -> Result<String, (StatusCode, String)> {
    invoices.get().await.map_err(|err| (StatusCode::BAD_GATEWAY, format!("{err:#}\n")))
}
