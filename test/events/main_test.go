package events_test

import (
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
