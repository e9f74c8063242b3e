package mtlsauth

import (
	_ "github.com/coreos/go-oidc/v3/oidc"
	_ "github.com/quic-go/quic-go/http3"
	_ "github.com/spf13/cobra"
	_ "golang.org/x/crypto/ocsp"
	_ "golang.org/x/net/http2"
	_ "golang.org/x/oauth2/clientcredentials"
	_ "golang.org/x/text/unicode/norm"
)
