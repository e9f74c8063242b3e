package rig

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// unserved is how long a server may take to begin a stream on a new connection.
const unserved = 5 * time.Second

// dialH3 opens a connection that a server serves. While Caddy ends the HTTP/3 server of a
// configuration, quic-go drops a connection that this server has just accepted, without
// closing it: requests on it are never answered. A server that serves a connection begins
// its control stream at once.
func dialH3(ctx context.Context, address string, tlsConfig *tls.Config, config *quic.Config) (*quic.Conn, error) {
	for {
		begun := make(chan struct{})
		watched := config.Clone()
		watched.Tracer = func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
			return streamWatch(sync.OnceFunc(func() { close(begun) }))
		}
		conn, err := quic.DialAddr(ctx, address, tlsConfig, watched)
		if err != nil {
			return nil, err
		}
		select {
		case <-begun:
			return conn, nil
		case <-conn.Context().Done(): // its requests say why
			return conn, nil
		case <-ctx.Done():
			_ = conn.CloseWithError(0, "")
			return nil, ctx.Err()
		case <-time.After(unserved):
			_ = conn.CloseWithError(0, "")
		}
	}
}

// streamWatch is called when data of a stream comes in. It implements
// [qlogwriter.Trace] and [qlogwriter.Recorder].
type streamWatch func()

// AddProducer returns the watch.
func (w streamWatch) AddProducer() qlogwriter.Recorder { return w }

// SupportsSchemas reports that the watch is only for QUIC.
func (streamWatch) SupportsSchemas(string) bool { return false }

// Close does nothing.
func (streamWatch) Close() error { return nil }

// RecordEvent looks for a stream in a packet.
func (w streamWatch) RecordEvent(event qlogwriter.Event) {
	packet, ok := event.(qlog.PacketReceived)
	if !ok {
		return
	}
	for _, frame := range packet.Frames {
		if _, ok := frame.Frame.(*qlog.StreamFrame); ok {
			w()
		}
	}
}
