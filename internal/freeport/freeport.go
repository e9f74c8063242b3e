// Package freeport finds ports for servers of the demo and of the tests, which are told on
// which ports they are to listen.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// The ports are below those that systems hand out to whoever asks for any port, which
// begin at 32768 or later. So nobody gets one of them by chance before its server listens,
// or while it is being restarted. Those of examples/run begin at 20000.
const first, count = 10000, 10000

// given are the ports that this process has got and not released, with the listeners that
// reserve them.
var given sync.Map

// Reserve returns a port of the loopback interface that is free for TCP, and for UDP,
// which HTTP/3 uses. No other call returns it, in this process or another, until release
// is called or the process ends.
func Reserve() (port string, release func(), err error) {
	for range 200 {
		port = strconv.Itoa(first + rand.IntN(count)) //nolint:gosec // it is no secret
		if release = reserve(port); release != nil {
			return port, release, nil
		}
	}
	return "", nil, errors.New("found no port that is free for TCP and UDP")
}

// reserve returns nil if the port is not free.
func reserve(port string) (release func()) {
	if _, taken := given.LoadOrStore(port, true); taken {
		return nil
	}
	// listening on a second address reserves the port among processes; not every system has one
	reservation, err := net.Listen("tcp", "127.0.0.2:"+port)
	given.Store(port, reservation)
	release = func() {
		if reservation != nil {
			_ = reservation.Close()
		}
		given.Delete(port)
	}
	if errors.Is(err, syscall.EADDRINUSE) || !free("127.0.0.1:"+port) {
		release()
		return nil
	}
	return release
}

func free(address string) bool {
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return udp.Close() == nil
}
