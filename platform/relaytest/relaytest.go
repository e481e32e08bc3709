// Package relaytest stands between two sides of a connection, for tests of what becomes of them when it is slow, cut or counted.
package relaytest

import (
	"net"
	"testing"
)

// Relay is an address from which connections are led on.
type Relay struct {
	Addr string
	lis  net.Listener
}

// Listen opens one until the test ends. Nobody is let in before Serve.
func Listen(t testing.TB) *Relay {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	return &Relay{lis.Addr().String(), lis}
}

// Serve begins to lead connections to a server. carry is told of each, one after the other, and passes what comes on, both ways.
func (r *Relay) Serve(server string, carry func(near, far net.Conn)) {
	go func() {
		for {
			near, err := r.lis.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				_ = near.Close()
				continue
			}
			carry(near, far)
		}
	}()
}

// Pass passes on what comes until that ends, and then closes to. before, if there is one, is told of n bytes before they are passed on,
// and ends it by false.
func Pass(to, from net.Conn, before func(n int) bool) {
	defer func() { _ = to.Close() }()
	for buf := make([]byte, 64<<10); ; {
		n, err := from.Read(buf)
		if err != nil || before != nil && !before(n) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
