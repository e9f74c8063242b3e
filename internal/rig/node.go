package rig

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// nodeConfig and nodeSink are the environment variables of a process that runs
// another Caddy of a cluster: its configuration file and the sink of its logs.
const (
	nodeConfig = "MTLS_TEST_NODE_CONFIG"
	nodeSink   = "MTLS_TEST_NODE_SINK"
)

// Main runs the tests, a Caddy in a process that [Node] has started, or the command caddy
// in one that [Shell] has.
func Main(m *testing.M) {
	canRestart = true
	if os.Getenv(asCaddy) != "" {
		os.Args[0] = "caddy"
		caddycmd.Main()
		return
	}
	if file := os.Getenv(nodeConfig); file != "" {
		os.Exit(runNode(file))
	}
	os.Exit(m.Run())
}

// canRestart is set once [Main] runs, without which a process that is to be something
// else would run the tests of its package again.
var canRestart bool

func needMain(t *testing.T) {
	t.Helper()
	if !canRestart {
		t.Fatal("TestMain of this package does not call rig.Main; add it")
	}
}

// runNode runs a Caddy until its standard input ends.
func runNode(file string) int {
	logSinks[os.Getenv(nodeSink)] = newLogSink()
	config, err := os.ReadFile(file)
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := caddy.Stop(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// Node runs another Caddy in a separate process, with the same storage and
// certificates but different ports. The returned rig sends requests to it. The
// test cannot read its logs.
func Node(r *Rig, t *testing.T, global, sites string) *Rig {
	t.Helper()
	needMain(t)
	other := *r
	other.T, other.HTTPS, other.HTTP, other.Admin = t, FreePort(t), FreePort(t), FreePort(t)
	config, err := other.Adapt(global, sites)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), nodeConfig+"="+r.Write("node.json", config), nodeSink+"="+r.Logs.name)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("the other Caddy: %v", err)
		}
	})
	if line, err := bufio.NewReader(output).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the other Caddy did not start: %q, %v", line, err)
	}
	return &other
}
