package shared

import (
	"context"
	"errors"
	"io"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// Put is vfs.Shared's.
func (v *View) Put(ctx context.Context, path string, content io.Reader, absent bool) error {
	p, err := v.storable(path)
	if err != nil {
		return err
	}
	n := &v.cache.names
	err = n.put(ctx, p, content, absent)
	n.forget(p) // the service tells of it, but here nobody shall depend on being told
	switch {
	case absent && errors.Is(err, fault.Conflict):
		return abi.EEXIST
	case errors.Is(err, fault.TooLarge):
		return abi.EFBIG
	}
	return guestError(err)
}

// Remove is vfs.Shared's.
func (v *View) Remove(ctx context.Context, path string) error {
	p, err := v.storable(path)
	if err != nil {
		return err
	}
	n := &v.cache.names
	_, err = n.client.DeleteFile(ctx, &fsv1.DeleteFileRequest{User: string(p.User), Path: p.Path})
	n.forget(p)
	return guestError(err)
}

// storable is the path of a file. EINVAL if none like it can be stored.
func (v *View) storable(path string) (skein.FilePath, error) {
	p, root, err := v.at(path)
	switch {
	case root:
		return p, abi.EISDIR
	case err != nil:
		return p, abi.EINVAL
	}
	return p, nil
}

// put sends a file. It is there at the end of the stream, or not at all.
func (n *names) put(ctx context.Context, p skein.FilePath, content io.Reader, absent bool) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop() // what could not be read to its end is not put
	stream, err := n.client.PutFile(ctx)
	if err != nil {
		return err
	}
	m := &fsv1.PutFileRequest{User: string(p.User), Path: p.Path, IfAbsent: absent}
	err = service.Frames(content, func(data []byte) error {
		m.Data = data
		err := stream.Send(m)
		m = &fsv1.PutFileRequest{}
		return err
	})
	if err != nil {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}
