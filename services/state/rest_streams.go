package state

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"skein.dev"
	"skein.dev/platform/archive"
	"skein.dev/platform/fault"
)

const (
	writeTime = 15 * time.Second // that a client has for taking an event
	quietTime = 15 * time.Second // after which a watcher is told that we live
)

// elements writes a line for each element: {"index": "0", "data": base64}.
func (h *rest) elements(w http.ResponseWriter, r *http.Request) error {
	k, err := target(r, ":elements")
	if err != nil {
		return err
	}
	index, err1 := numberOf(r.URL.Query(), "index")
	count, err2 := numberOf(r.URL.Query(), "count")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	begun := false
	out := json.NewEncoder(w)
	err = h.store.Elements(r.Context(), k, index, count, func(page [][]byte) error {
		begun = true
		for _, e := range page {
			line := struct {
				Index int64  `json:"index,string"`
				Data  []byte `json:"data"`
			}{index, e}
			if err := out.Encode(line); err != nil {
				return err
			}
			index++
		}
		return nil
	})
	if err != nil && begun {
		panic(http.ErrAbortHandler) // the client must not take what it has for all
	}
	return err
}

// watch sends an event for what the value is and for each change, until the client goes away.
func (h *rest) watch(w http.ResponseWriter, r *http.Request) error {
	k, err := target(r, ":watch")
	if err != nil {
		return err
	}
	head, conn := w.Header(), http.NewResponseController(w)
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no")
	head.Set("X-Content-Type-Options", "nosniff")
	begun := false
	write := func(text string) error {
		begun = true
		_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return conn.Flush()
	}
	ctx, end := untilLeaving(r.Context(), h.leaving)
	defer end(nil)
	sets, versions := make(chan []skein.StateKey, 1), make(chan int64)
	sets <- []skein.StateKey{k}
	go func() {
		end(h.store.Watch(ctx, sets, func(_ skein.StateKey, version int64) error {
			select {
			case versions <- version:
			case <-ctx.Done():
			}
			return nil
		}))
	}()
	quiet := time.NewTicker(quietTime)
	defer quiet.Stop()
	for {
		select {
		case <-quiet.C:
			err = write(":\n\n")
		case v := <-versions:
			err = write(fmt.Sprintf("id: %d\nevent: value\ndata: {\"version\": \"%d\"}\n\n", v, v))
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil && !begun {
			return err
		}
		if err != nil {
			return nil // it comes again, as clients of events do
		}
	}
}

// export writes an archive (platform/archive). Each value is of one version; all together are not of one moment.
func (h *rest) export(w http.ResponseWriter, r *http.Request, u skein.User) error {
	out, token, begun := tar.NewWriter(w), "", false
	for {
		page, next, err := h.store.List(r.Context(), u, r.URL.Query().Get("prefix"), maxPage, token)
		if err != nil && !begun {
			return err
		}
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-tar")
		}
		for _, i := range page {
			if err == nil {
				err = h.exportOne(r, out, i.Key)
			}
			if err == nil {
				err = h.exportElements(r, out, i.Key)
			}
		}
		if err == nil && next == "" {
			err = out.Close()
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the client must not take what it has for all
		}
		if next == "" {
			return nil
		}
		token = next
	}
}

func (h *rest) exportOne(r *http.Request, out *tar.Writer, k skein.StateKey) error {
	header := func(i Info) error {
		return out.WriteHeader(archive.Value(escape(k.Key), i.Size, i.Version, i.Updated, i.Expires))
	}
	data, info, err := h.store.Get(r.Context(), k, 0, 0) // again if it changes, which Read can't once it began
	switch {
	case errors.Is(err, fault.NotFound): // deleted since it was listed
		return nil
	case errors.Is(err, fault.TooLarge):
		return h.store.Read(r.Context(), k, 0, 0, header, func(b []byte) error {
			_, err := out.Write(b)
			return err
		})
	case err != nil:
		return err
	}
	if err := header(info); err != nil {
		return err
	}
	_, err = out.Write(data)
	return err
}

func (h *rest) exportElements(r *http.Request, out *tar.Writer, k skein.StateKey) error {
	return archive.WriteElements(out, escape(k.Key), func(n int64, f func([]byte) error) error {
		return h.store.Elements(r.Context(), k, 0, n, func(page [][]byte) error {
			for _, e := range page {
				if err := f(e); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// importAll stores what export wrote, or any tar whose files are named like that. Others' values stay. When it fails, those before are stored.
func (h *rest) importAll(w http.ResponseWriter, r *http.Request, u skein.User) error {
	in := archive.NewReader(body{r.Body})
	values, bytes := int64(0), int64(0)
	for {
		f, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && f.Typeflag == tar.TypeReg {
			if !archive.HasElements(f) {
				values++
			}
			bytes += f.Size
			err = h.importOne(r, u, f, in)
		}
		if e := fault.From(err); e != nil {
			if e.Kind == fault.Internal {
				e = fault.Invalid.New("BAD_ARCHIVE", "the body is not a tar archive: %s", err)
			}
			e.Message = fmt.Sprintf("after %d values: %s", max(0, values-1), e.Message)
			return e
		}
	}
	return writeJSON(w, struct {
		Values int64 `json:"values,string"`
		Bytes  int64 `json:"bytes,string"`
	}{values, bytes})
}

func (h *rest) importOne(r *http.Request, u skein.User, f *tar.Header, in io.Reader) error {
	k, err := archive.Key(string(u), f)
	if err != nil {
		return err
	}
	if archive.HasElements(f) {
		if err := h.store.ClearElements(r.Context(), k, ""); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
		return archive.ReadElements(k, in, func(e []byte) error {
			_, err := h.store.AppendElement(r.Context(), k, e, "")
			return err
		})
	}
	if _, err = h.store.Write(r.Context(), k, in, Any, ""); err != nil {
		return err
	}
	left, err := archive.Left(k, f)
	if left > 0 {
		_, err = h.store.Expire(r.Context(), k, left, "")
	}
	return err
}
