package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

func rest(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	planner, executor, err := w.suite(ctx)
	if err != nil {
		return side{}, side{}, err
	}
	p, err := w.role(ctx, "http-echo", "http-echo")
	if err != nil {
		return side{}, side{}, err
	}
	path := "/v1/invoke/" + user + "/" + function
	if ours, err = overHTTP(planner, clients, path, payload, payload, executor, w.procs["upload"]); err == nil {
		bare, err = overHTTP(p, clients, path, payload, payload)
	}
	return ours, bare, err
}

// overHTTP makes a side of clients with a connection each. They are lighter than net/http's, whose own cost, the same on
// both sides, would hide some of ours.
func overHTTP(p *process, clients int, path string, input, answer []byte, others ...*process) (side, error) {
	var conns []net.Conn
	s := side{procs: append(others, p), close: func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}}
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s",
		path, p.addr, len(input), input)
	for range clients {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			s.close()
			return side{}, err
		}
		conns = append(conns, conn)
		from, body := bufio.NewReader(conn), make([]byte, len(answer))
		s.clients = append(s.clients, func(ctx context.Context) error {
			deadline, _ := ctx.Deadline()
			if err := conn.SetDeadline(deadline); err != nil {
				return err
			}
			if _, err := conn.Write(request); err != nil {
				return err
			}
			resp, err := http.ReadResponse(from, nil)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(answer)) {
				text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
				return fmt.Errorf("%w: %s: %s", errWrong, resp.Status, text)
			}
			if _, err = io.ReadFull(resp.Body, body); err == nil && !bytes.Equal(body, answer) {
				err = fmt.Errorf("%w: %.100q", errWrong, body)
			}
			return err
		})
	}
	return s, nil
}
