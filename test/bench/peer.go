package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
)

// errSkip is wrapped where this machine lacks what a benchmark compares with; the others go on.
var errSkip = errors.New("skipped")

// workerd is Cloudflare's runtime with a worker that calls another a thousand times over a service binding, within its process.
func (w *world) workerd(ctx context.Context) (*process, error) {
	if p := w.procs["workerd"]; p != nil {
		return p, nil
	}
	bin := filepath.Join(w.root, ".bin", "workerd")
	if _, err := exec.LookPath(bin); err != nil {
		if bin, err = exec.LookPath("workerd"); err != nil {
			return nil, fmt.Errorf("%w: no workerd (make .bin/workerd)", errSkip)
		}
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := lis.Addr().String()
	if err := lis.Close(); err != nil { // it does not say which port it took, so it is given one that is free
		return nil, err
	}
	p, err := launch("workerd", bin, "serve", filepath.Join(w.root, "test", "bench", "testdata", "workerd", "config.capnp"), "--socket-addr", "http="+addr)
	if err != nil {
		return nil, err
	}
	w.keep(p)
	p.addr = addr
	return p, soon(ctx, func(context.Context) error {
		select {
		case <-p.gone:
			return fmt.Errorf("workerd ended at once\n%s", p.said)
		default:
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// fanoutPeer is a call that calls a thousand and awaits them, all in one executor, asked over HTTP: against workerd.
func fanoutPeer(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	peer, err := w.workerd(ctx)
	if err != nil {
		return side{}, side{}, err
	}
	c, err := w.together(ctx, "peer", []int{8})
	if err != nil {
		return side{}, side{}, err
	}
	input, answer := []byte("fan 1000 echo"), []byte("1000")
	if ours, err = overHTTP(c.planner, clients, "/v1/invoke/"+user+"/"+caller, input, answer, c.others()...); err == nil {
		bare, err = overHTTP(peer, clients, "/", input, answer)
	}
	ours.each, bare.each = 1000, 1000
	return ours, bare, err
}
