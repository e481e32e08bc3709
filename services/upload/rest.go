package upload

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
)

// rest takes modules as raw bodies, which the generated gateway can't:
//
//	PUT /v1/functions/{user}/{function}?request_id=  →  201 and the function, or 200 if nothing is new
type rest struct {
	registry *Registry
	gate     *intake
}

func (h *rest) routes(s *service.Server) { s.Handle("PUT /v1/functions/{user}/{function}", h.put) }

func (h *rest) put(w http.ResponseWriter, r *http.Request) error {
	f, err := skein.NewFunction(r.PathValue("user"), r.PathValue("function"))
	if err != nil {
		return err
	}
	id := r.URL.Query().Get("request_id")
	if err := checkRequestID(id); err != nil {
		return err
	}
	body := &body{r.Body, http.NewResponseController(w), h.gate}
	wasm, release, err := h.gate.read(body, r.ContentLength)
	if err != nil {
		return err
	}
	defer release()
	fn, created, err := h.registry.Upload(r.Context(), f, wasm, id)
	if err != nil {
		return err
	}
	answer, err := functionJSON(fn)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if created {
		w.WriteHeader(http.StatusCreated)
	}
	_, _ = w.Write(answer)
	return nil
}

// body is a request's. Each piece of it has its own deadline, and its failures are the client's.
type body struct {
	io.Reader
	conn *http.ResponseController
	gate *intake
}

func (b *body) Read(p []byte) (int, error) {
	_ = b.conn.SetReadDeadline(time.Now().Add(b.gate.idle))
	n, err := b.Reader.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		_ = b.conn.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = b.gate.tooSlow()
	default:
		err = fault.Cancelled.New("BODY_CUT", "the body ended early: %s", err)
	}
	return n, err
}
