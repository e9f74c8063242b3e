// Command caddy is Caddy with its standard modules and this plugin, like the result of
// `xcaddy build --with github.com/caddymtls/caddy-mtls-auth`.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddymtls/caddy-mtls-auth"
)

func main() {
	caddycmd.Main()
}
