package freeport

import (
	"io"
	"net"
	"testing"
)

func TestReserve(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		port, release, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		if seen[port] {
			t.Errorf("port %s is reserved twice", port)
		}
		seen[port] = true
		if reserve(port) != nil {
			t.Errorf("port %s is reserved again", port)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
	}
}

func TestReleasedPortIsNotKept(t *testing.T) {
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, kept := given.Load(port); kept {
		t.Error("it is kept")
	}
}

func TestTakenPortIsNotReserved(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for address, taken := range map[net.Addr]io.Closer{tcp.Addr(): tcp, udp.LocalAddr(): udp} {
		_, port, _ := net.SplitHostPort(address.String())
		if reserve(port) != nil {
			t.Errorf("%s port %s is reserved", address.Network(), port)
		}
		_ = taken.Close()
	}
}
