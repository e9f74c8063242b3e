package reporter

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

// levelOf returns the level of the lines about a refusal.
func levelOf(failed bool) zapcore.Level {
	if failed {
		return zap.ErrorLevel
	}
	return zap.WarnLevel
}

// writeLine writes the log line of a refusal.
func writeLine(logger *zap.Logger, record *refusals.Record) {
	entry := logger.Check(levelOf(record.Failed), record.Message)
	if entry == nil {
		return
	}
	entry.Time = record.At
	fields := []zap.Field{zap.String("reason", record.Reason), zap.String("detail", record.Detail), zap.String("directive", record.Directive)}
	if record.ReportOnly {
		fields = append(fields, zap.Bool("report_only", true))
	}
	if record.RemoteIP != "" {
		fields = append(fields, zap.String("remote_ip", record.RemoteIP), zap.String("host", record.Host), zap.String("uri", record.URI))
	}
	if record.Forwarded {
		fields = append(fields, zap.Bool("forwarded", true)) // and remote_ip is the proxy's
	}
	fields = append(fields, zap.String("error_id", record.ErrorID))
	fields = appendText(fields, "client_id", record.ClientID)
	if record.Certificate != nil {
		fields = append(fields, authn.CertificateFields(record.Certificate)...)
		if names := record.Certificate.Names; len(names) > 0 {
			fields = append(fields, zap.Strings("names", names))
		}
	}
	hint := record.Hint
	if text, known := reasons.Of(record.Reason); known && hint == "" {
		hint = text.Short()
	}
	fields = appendText(fields, "hint", hint)
	fields = appendText(fields, "register", record.Register)
	fields = appendText(fields, "token_issuer", record.TokenIssuer)
	fields = appendText(fields, "token_id", record.TokenID)
	entry.Write(fields...)
}

// writeCount writes the log line of refusals that have had none.
func writeCount(logger *zap.Logger, counted *refusals.Counted) {
	last := &counted.Last
	var entry *zapcore.CheckedEntry
	if counted.Several {
		entry = logger.Check(levelOf(last.Failed), "more refusals")
	} else {
		entry = logger.Check(levelOf(last.Failed), "refusal repeated")
	}
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.Int("times", counted.Times), zap.String("refused", counted.Message),
		zap.String("reason", counted.Reason), zap.String("directive", counted.Directive),
	}
	if last.ReportOnly {
		fields = append(fields, zap.Bool("report_only", true))
	}
	if !counted.Several {
		fields = appendText(fields, "client_id", last.ClientID)
		fields = appendText(fields, "thumbprint", last.Thumbprint)
		fields = appendText(fields, "remote_ip", last.RemoteIP)
	}
	entry.Write(append(fields, zap.String("error_id", last.ErrorID))...)
}

func appendText(fields []zap.Field, key, text string) []zap.Field {
	if text == "" {
		return fields
	}
	return append(fields, zap.String(key, text))
}
