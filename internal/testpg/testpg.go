// Package testpg runs a PostgreSQL server for tests: one of its own, in a temporary
// folder, on a loopback port. It never touches the one of the system.
package testpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/freeport"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// Superuser and Password are what every DSN of [Server.DSN] logs in with.
const (
	Superuser = "postgres"
	Password  = "not-the-usual-password"
)

// patience is how long a server may take to start or to stop.
const patience = time.Minute

// supervise runs the server as long as its standard input is open, so that no server
// outlives the tests, however these end. A line stops the server and keeps its data.
const supervise = `
folder=$0
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
if read -r signal; then
	kill -"$signal" $server
	wait $server
else
	kill -QUIT $server
	wait $server
	rm -rf "$folder"
fi
exit 0`

// Server is a PostgreSQL server.
type Server struct {
	programs, folder, port string
	release                func()              // the port
	owner                  *syscall.Credential // nil: whoever runs the tests

	command   *exec.Cmd
	input     io.WriteCloser
	ended     chan struct{} // closed when the server has ended
	databases atomic.Int64
}

// Start starts a new server that is stopped at the end of the test. The test is skipped
// if PostgreSQL is not installed.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := start(programs(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = s.input.Close()
		<-s.ended
		_ = os.RemoveAll(s.folder) // if the test has stopped it
		s.release()
	})
	return s
}

// shared is the server of [Shared].
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns the server that all tests of the test binary share, each with a
// database of its own. A test that stops a server needs one from [Start].
func Shared(tb testing.TB) *Server {
	tb.Helper()
	folder := programs(tb)
	shared.once.Do(func() { shared.server, shared.err = start(folder) })
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.server
}

// programs returns the folder that initdb and postgres are in. Debian has it outside of
// PATH.
func programs(tb testing.TB) string {
	tb.Helper()
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path)
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		testtool.Missing(tb, "PostgreSQL is not installed, so nothing is tested with it")
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
}

// version returns the major version that a path of Debian's package has.
func version(path string) int {
	v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return v
}

// start creates a server and runs it.
func start(programs string) (*Server, error) {
	folder, err := os.MkdirTemp("", "testpg")
	if err != nil {
		return nil, err
	}
	s := &Server{programs: programs, folder: folder}
	if err := s.create(); err != nil {
		_ = os.RemoveAll(folder)
		return nil, err
	}
	if err := s.run(); err != nil {
		return nil, err
	}
	return s, nil
}

// create creates the server's files and chooses its port.
func (s *Server) create() error {
	if os.Geteuid() == 0 { // PostgreSQL does not run as root
		if err := s.giveAway(); err != nil {
			return err
		}
	}
	var err error
	if s.port, s.release, err = freeport.Reserve(); err != nil {
		return err
	}
	if err := os.WriteFile(s.folder+"/password", []byte(Password), 0o644); err != nil { //nolint:gosec // read by another user
		return err
	}
	command := exec.CommandContext(context.Background(), s.programs+"/initdb", "--pgdata", s.folder+"/data", "--username", Superuser, "--pwfile", s.folder+"/password", //nolint:gosec // no one else chooses them
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	command.Dir = s.folder
	command.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, output)
	}
	return nil
}

// giveAway has another user than root own the server.
func (s *Server) giveAway() error {
	owner, err := user.Lookup("postgres")
	if err != nil {
		if owner, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.folder, uid, gid)
}

// run runs the server and returns when it answers.
func (s *Server) run() error {
	s.command = exec.CommandContext(context.Background(), "/bin/sh", "-c", supervise, s.folder, s.programs+"/postgres", "-D", s.folder+"/data", "-p", s.port, //nolint:gosec // no one else chooses them
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB")
	s.command.Dir = s.folder
	s.command.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setpgid: true}
	var err error
	if s.input, err = s.command.StdinPipe(); err != nil {
		return err
	}
	if err := s.command.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	s.ended = ended
	go func() {
		_ = s.command.Wait()
		close(ended)
	}()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(context.Background(), s.DSN("postgres"))
		if err == nil {
			return conn.Close(context.Background())
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(s.folder + "/log")
			_ = s.input.Close()
			return fmt.Errorf("PostgreSQL does not start: %w: %s", err, text)
		}
	}
}

// DSN returns the DSN of a database of the server, for the superuser.
func (s *Server) DSN(database string) string {
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword(Superuser, Password), Host: s.Address(), Path: "/" + database,
		RawQuery: "sslmode=disable&connect_timeout=" + strconv.Itoa(int(patience.Seconds())),
	}
	return dsn.String()
}

// Address returns the host and the port that the server listens on, which stay the same
// when it is restarted.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", s.port) }

// Database creates an empty database and returns its DSN.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	Exec(tb, s.DSN("postgres"), "CREATE DATABASE "+name)
	tb.Cleanup(func() {
		if s.Running() {
			Exec(tb, s.DSN("postgres"), "DROP DATABASE "+name+" WITH (FORCE)")
		}
	})
	return s.DSN(name)
}

// Running reports whether the server is running.
func (s *Server) Running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Stop stops the server and ends all connections. Its data stay.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	s.end(tb, "INT")
}

// Crash stops the server at once, as a crash does. What was committed stays.
func (s *Server) Crash(tb testing.TB) {
	tb.Helper()
	s.end(tb, "QUIT")
}

func (s *Server) end(tb testing.TB, signal string) {
	tb.Helper()
	if _, err := io.WriteString(s.input, signal+"\n"); err != nil {
		tb.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		tb.Fatal("PostgreSQL does not stop")
	}
}

// Restart runs the server again, after it was stopped, and returns when it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	if s.Running() {
		tb.Fatal("PostgreSQL is running; stop it first")
	}
	if err := s.run(); err != nil {
		tb.Fatal(err)
	}
}

// Connect opens a connection that is closed at the end of the test.
func Connect(tb testing.TB, dsn string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs SQL on a connection of its own. Without args, these can be several
// statements.
func Exec(tb testing.TB, dsn, sql string, args ...any) {
	tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = conn.Exec(ctx, sql, args...)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}
