//! An API that verifies tokens: access tokens behind mtls_bearer ("at+jwt"), which has
//! checked that they are bound to the certificate, or the token that forward_token of
//! mtls_auth adds ("gateway+jwt").
//!
//!     mtls_bearer {
//!         audience https://api.example.com
//!     }
use std::{env, sync::Arc};

use anyhow::{Context, Result};
use axum::{Router, routing::get};
use tokens::{Claims, Refusal, Verifier};

#[tokio::main]
async fn main() {
    if let Err(err) = serve().await {
        eprintln!("{err:#}");
        std::process::exit(1);
    }
}

async fn serve() -> Result<()> {
    let address = env::var("LISTEN").context("LISTEN is not set")?;
    let listener = tokio::net::TcpListener::bind(&address).await.with_context(|| format!("LISTEN={address}"))?;
    let app = Router::new().route("/", get(hello)).route("/invoices", get(invoices));
    Ok(axum::serve(listener, app.with_state(Arc::new(Verifier::from_env()?))).await?)
}

async fn hello(client: Claims) -> String {
    format!("hello {}", client.client_id)
}

async fn invoices(client: Claims) -> Result<String, Refusal> {
    if !client.has("invoices.read") {
        return Err(Refusal::InsufficientScope("invoices.read"));
    }
    Ok(format!("invoices of {}", client.client_id))
}
