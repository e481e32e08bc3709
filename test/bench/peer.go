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
	return w.listens(ctx, "workerd", bin, func(addr string) []string {
		return []string{"serve", filepath.Join(w.root, "test", "bench", "testdata", "workerd", "config.capnp"), "--socket-addr", "http=" + addr}
	})
}

// redis starts one that keeps what it has, as the documentation of deployments has it.
func (w *world) redis(ctx context.Context, name string) (*process, error) {
	if p := w.procs[name]; p != nil {
		return p, nil
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, fmt.Errorf("%w: no redis-server", errSkip)
	}
	if err := w.build(ctx); err != nil { // which makes the directory
		return nil, err
	}
	return w.listens(ctx, name, "redis-server", func(addr string) []string {
		_, port, _ := net.SplitHostPort(addr)
		return []string{"--bind", "127.0.0.1", "--port", port, "--databases", "100", "--save", "", "--appendonly", "yes", "--dir", w.dir, "--appenddirname", name}
	})
}

// planner starts one that keeps its calls in a database of its own.
func (w *world) planner(ctx context.Context, name string, args ...string) (*process, error) {
	if p := w.procs[name]; p != nil {
		return p, nil
	}
	redis, err := w.redis(ctx, "journal")
	if err != nil {
		return nil, err
	}
	w.planners++
	p, err := w.service(ctx, name, "planner", append(args, "--redis-url", fmt.Sprintf("redis://%s/%d", redis.addr, w.planners))...)
	if err != nil {
		return nil, err
	}
	return p, attached(ctx, p, 0, -1) // it stands by until it has its lease
}

// listens starts a program that does not say which port it took, so that it is given one that is free.
func (w *world) listens(ctx context.Context, name, bin string, args func(addr string) []string) (*process, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := lis.Addr().String()
	if err := lis.Close(); err != nil {
		return nil, err
	}
	p, err := launch(name, bin, args(addr)...)
	if err != nil {
		return nil, err
	}
	w.keep(p)
	p.addr = addr
	return p, soon(ctx, func(context.Context) error {
		select {
		case <-p.gone:
			return fmt.Errorf("%s ended at once\n%s", name, p.said)
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
