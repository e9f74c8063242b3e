package clients

import "github.com/caddymtls/caddy-mtls-auth/internal/strictjson"

const maxRecordBytes = 256 << 10

// checkMembers refuses what encoding/json lets pass in silence. Two members
// that differ only in case are caught later, as unknown ones.
func checkMembers(raw []byte, limit int) error { return strictjson.Check(raw, limit) }
