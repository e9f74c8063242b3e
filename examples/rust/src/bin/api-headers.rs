//! An API behind mtls_auth or mtls_bearer that takes the client from the headers Caddy sets.
//! It must be reachable through Caddy only, so LISTEN is an address of the loopback interface.
//!
//!     mtls_auth {
//!         header_up X-Client-ID {http.mtls.client_id}
//!         header_up X-Client-Scope {http.mtls.scope}
//!     }
use std::env;

use anyhow::{Context, Result};
use axum::extract::FromRequestParts;
use axum::http::{StatusCode, request::Parts};
use axum::{Router, routing::get};

struct Principal {
    client_id: String,
    scopes: Vec<String>,
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let one = |name| {
            let mut values = parts.headers.get_all(name).iter();
            let value = values.next().filter(|_| values.next().is_none())?;
            value.to_str().ok().filter(|value| !value.is_empty())
        };
        let client_id = one("x-client-id").ok_or(StatusCode::UNAUTHORIZED)?.to_owned();
        let scopes = one("x-client-scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        Ok(Self { client_id, scopes })
    }
}

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
    Ok(axum::serve(listener, Router::new().route("/", get(hello)).route("/invoices", get(invoices))).await?)
}

async fn hello(client: Principal) -> String {
    format!("hello {}", client.client_id)
}

async fn invoices(client: Principal) -> Result<String, StatusCode> {
    if !client.scopes.iter().any(|scope| scope == "invoices.read") {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(format!("invoices of {}", client.client_id))
}
