package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	// connectTimeout bounds a connection attempt to one address, unless the DSN does.
	connectTimeout = 5 * time.Second
	// closeTimeout bounds how long a connection is closed politely.
	closeTimeout = time.Second
)

// errDSN does not say what is wrong: what is part of the password cannot be told if the
// rest is wrong.
var errDSN = errors.New("invalid DSN, which is not shown because of its password; " +
	"write postgres://<user>@<host>:<port>/<database>?sslmode=verify-full, with special characters percent-encoded, or \"host=… dbname=…\"")

// parseDSN parses a DSN, a URL or pairs of key=value, of which nothing is in the error.
func parseDSN(dsn string) (*pgx.ConnConfig, error) {
	if strings.TrimSpace(dsn) == "" {
		return nil, errors.New("the DSN is empty; write postgres://<user>@<host>:<port>/<database>?sslmode=verify-full, or set the variable it comes from")
	}
	config, err := pgx.ParseConfig(strings.TrimSpace(dsn))
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		return nil, fmt.Errorf("DSN: %w", file)
	case err != nil:
		return nil, errDSN
	}
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, connectTimeout)
	config.RuntimeParams["client_encoding"] = "UTF8"
	config.RuntimeParams["application_name"] = cmp.Or(config.RuntimeParams["application_name"], "caddy-mtls-auth")
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // prepares nothing, which a pooler would lose
	return config, nil
}

// sourceName returns the name of the source, without a secret.
func sourceName(config *pgx.ConnConfig, table tableName) string {
	host := config.Host
	if !isSocket(host) {
		host = net.JoinHostPort(host, fmt.Sprint(config.Port))
	}
	return "postgres:" + path.Join(host, config.Database, table.shown())
}

// unverifiedHost returns a host of the DSN that is reached through the network without
// checking who it is, or "".
func unverifiedHost(config *pgx.ConnConfig) string {
	check := func(c *pgconn.FallbackConfig) bool {
		verified := c.TLSConfig != nil && (!c.TLSConfig.InsecureSkipVerify || c.TLSConfig.VerifyPeerCertificate != nil)
		ip := net.ParseIP(c.Host)
		return verified || isSocket(c.Host) || c.Host == "localhost" || ip != nil && ip.IsLoopback()
	}
	hosts := append([]*pgconn.FallbackConfig{{Host: config.Host, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	for _, c := range hosts {
		if !check(c) {
			return c.Host
		}
	}
	return ""
}

// isSocket reports whether a host is the folder of a Unix socket.
func isSocket(host string) bool { return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") }

// connect opens a connection. Its error is one line.
func connect(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, &connectError{err}
	}
	return conn, nil
}

type connectError struct{ error }

func (e *connectError) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e *connectError) Unwrap() error { return e.error }

// closeConn closes a connection.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

// availability wraps [clients.ErrUnavailable] around an error that says that the
// database is away, as opposed to one that says that it is not as it should be.
func availability(err error) error {
	var table *tableError
	var refused *refusal
	var fault *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, clients.ErrUnavailable), errors.As(err, &table), errors.As(err, &refused):
		return err
	case errors.As(err, &fault):
		switch fault.Code[:2] {
		case "08", "40", "53", "55", "57", "58", "XX": // the server, and not what it was asked
		default:
			return err
		}
	}
	return fmt.Errorf("%w: %w", clients.ErrUnavailable, err)
}
