# shellcheck shell=bash disable=SC2034 # examples/run reads the variables
title=Rust
library='reqwest 0.13 with rustls'
programs='smallest client api-headers api-token api-mtls'
client_files='src/bin/client/main.rs src/bin/client/mtls.rs src/bin/client/identity.rs src/bin/client/issuer.rs'
callers=service
certificate=pem
missing() { command -v cargo >/dev/null || echo 'cargo is not installed'; }
prepare() { cargo build --locked --quiet; }
run() { exec "target/debug/$1"; }
