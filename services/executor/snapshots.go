package executor

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

const (
	// bootTimeout bounds what a module does before its snapshot. One that takes longer does it again in every call, under
	// the call's own deadline.
	bootTimeout = 30 * time.Second
	// maxSnapshot bounds a stored snapshot in bytes: it is compressed, and larger than the memory it holds only if that
	// can't be.
	maxSnapshot = 1 << 30
)

// snapshotKey is where the bucket keeps a module's snapshot: HMAC-SHA256 of digest and rest, then the rest, which is what
// machine encodes.
func snapshotKey(d skein.Digest) string {
	return fmt.Sprintf("snapshots/p%d/%s", prepare.Version, d)
}

// awaken gives a module its snapshot: one that an executor has stored, or else its own, which it stores.
func (s *modules) awaken(ctx context.Context, mod *machine.Module, d skein.Digest, stored <-chan fetched) error {
	f := <-stored
	err := f.err
	if err == nil {
		err = mod.Adopt(f.snap)
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, fault.NotFound) {
		s.log.WarnContext(ctx, "a stored snapshot can't be used", "digest", d.String(), "error", err)
	}
	return s.boot(ctx, mod, d)
}

// fetched is what snapshot gave.
type fetched struct {
	snap *machine.Snapshot
	err  error
}

func (s *modules) fetchSnapshot(ctx context.Context, d skein.Digest) <-chan fetched {
	c := make(chan fetched, 1)
	go func() {
		snap, err := s.snapshot(ctx, d)
		c <- fetched{snap, err}
	}()
	return c
}

func (s *modules) snapshot(ctx context.Context, d skein.Digest) (*machine.Snapshot, error) {
	ctx, span := tracer().Start(ctx, "snapshot get", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	b, _, err := blob.Read(ctx, s.bucket, snapshotKey(d), maxSnapshot)
	if err != nil {
		return nil, err
	}
	if len(b) < sha256.Size || !hmac.Equal(b[:sha256.Size], s.tag(d, b[sha256.Size:])) {
		return nil, fault.DataLoss.New("SNAPSHOT_DAMAGED", "the snapshot of module %.12s was changed, or made with another key", d)
	}
	return machine.DecodeSnapshot(b[sha256.Size:])
}

func (s *modules) tag(d skein.Digest, b []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte("snapshot\n"))
	h.Write(d[:])
	h.Write(b)
	return h.Sum(nil)
}

func (s *modules) boot(ctx context.Context, mod *machine.Module, d skein.Digest) error {
	ctx, span := tracer().Start(ctx, "boot")
	defer span.End()
	within, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	err := mod.Boot(&host.Call{Context: within, Boot: true, Args: []string{"function"}, Log: &host.Log{}})
	switch {
	case ctx.Err() != nil:
		return fault.From(ctx.Err())
	case within.Err() != nil:
		s.log.WarnContext(ctx, "no snapshot: the module takes too long to initialise", "digest", d.String(), "most", bootTimeout)
		return nil
	case err != nil:
		return err
	case mod.Replay() != "":
		s.log.InfoContext(ctx, "no snapshot", "digest", d.String(), "reason", mod.Replay())
		return nil
	}
	snap := mod.Snapshot()
	s.behind.do(ctx, loadTimeout, func(ctx context.Context) { // it only saves others the work, and the call that waits is not one of them
		if err := s.publish(ctx, snap, d); err != nil {
			s.log.WarnContext(ctx, "the snapshot can't be stored", "digest", d.String(), "error", err)
		}
	})
	return nil
}

func (s *modules) publish(ctx context.Context, snap *machine.Snapshot, d skein.Digest) error {
	ctx, span := tracer().Start(ctx, "snapshot put", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	b, err := snap.Encode()
	if err != nil {
		return err
	}
	sealed := append(s.tag(d, b), b...)
	_, err = s.bucket.Put(ctx, snapshotKey(d), bytes.NewReader(sealed), int64(len(sealed)), blob.PutOptions{})
	return err
}
