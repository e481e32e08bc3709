package shared

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/watch"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// Watch keeps a stream of changes from the fs service standing until ctx ends.
func (c *Cache) Watch(ctx context.Context) error { return watch.Stand(ctx, c.names.follow) }

// follow hears of changes until the stream breaks, and sends beats. Who puts a file gets no answer before we say that we
// have seen it, for a lease at most; a beat that came back says that until a lease after it was sent we have missed nothing.
func (n *names) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := n.client.WatchFiles(ctx)
	if err != nil {
		return
	}
	if stream.Send(&fsv1.WatchFilesRequest{Lease: durationpb.New(n.lease)}) != nil {
		return
	}
	if _, err := stream.Header(); err != nil {
		return
	}
	n.begin()
	defer n.end()
	heard := make(chan *fsv1.WatchFilesResponse)
	go func() {
		defer close(heard)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case heard <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	beats := time.NewTicker(n.lease / 3)
	defer beats.Stop()
	sent, number := time.Now(), int64(1)
	if stream.Send(&fsv1.WatchFilesRequest{Beat: number}) != nil {
		return
	}
	for waiting := true; ; {
		var say *fsv1.WatchFilesRequest
		select {
		case m, ok := <-heard:
			switch {
			case !ok:
				return
			case m.GetBeat() != 0:
				if m.GetBeat() == number {
					n.beat(sent, m.GetSole())
					waiting = false
				}
				continue
			}
			if p, err := skein.NewFilePath(m.GetUser(), m.GetPath()); err == nil {
				n.forget(p)
			}
			say = &fsv1.WatchFilesRequest{SeenSequence: m.GetSequence()}
		case <-beats.C:
			if waiting { // for the one before
				continue
			}
			sent, number, waiting = time.Now(), number+1, true
			say = &fsv1.WatchFilesRequest{Beat: number}
		}
		if stream.Send(say) != nil {
			return
		}
	}
}
