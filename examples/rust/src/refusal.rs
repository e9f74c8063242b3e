//! Why a request is refused (RFC 6750 §3.1).
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

pub enum Refusal {
    NoToken,
    InvalidToken(String),
    InsufficientScope(&'static str),
    NoKeys,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, challenge) = match self {
            Refusal::NoToken => (StatusCode::UNAUTHORIZED, "Bearer".into()),
            Refusal::InvalidToken(why) => (StatusCode::UNAUTHORIZED, format!(r#"Bearer error="invalid_token", error_description="{why}""#)),
            Refusal::InsufficientScope(scope) => (StatusCode::FORBIDDEN, format!(r#"Bearer error="insufficient_scope", scope="{scope}""#)),
            Refusal::NoKeys => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
        (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }
}
