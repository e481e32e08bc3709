package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/archive"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

func (a *app) exportStateCmd() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use: "export USER", Short: "Write a user's values to stdout as a tar archive", Args: cobra.ExactArgs(1),
		Long: `Write a user's values to stdout as a tar archive: a file for each, named by its key, percent-encoded, and one more
for its elements, if it has some. Each value is of one version; all together are not of one moment.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if terminal(a.stdout) {
				return usagef("an archive is not for a terminal: redirect stdout")
			}
			state, err := a.stateClient()
			if err != nil {
				return err
			}
			out := tar.NewWriter(a.stdout)
			err = pages(notHeld, func(size int32, token string) (int, page, error) {
				resp, err := state.ListValues(cmd.Context(), &statev1.ListValuesRequest{
					User: args[0], Prefix: []byte(prefix), PageSize: size, PageToken: token,
				})
				for _, v := range resp.GetValues() {
					if err == nil {
						err = exportOne(cmd.Context(), state, args[0], v, out)
					}
				}
				return len(resp.GetValues()), resp, err
			})
			if err != nil {
				return err
			}
			return out.Close()
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with it")
	return cmd
}

func exportOne(ctx context.Context, state statev1.StateServiceClient, user string, v *statev1.ValueInfo, out *tar.Writer) error {
	key, err := skein.NewStateKey(user, string(v.GetKey()))
	if err != nil {
		return badAnswer("lists a value that can be none: %s", err)
	}
	if err := exportValue(ctx, state, key, out); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	err = archive.WriteElements(out, url.PathEscape(key.Key), func(n int64, f func([]byte) error) error {
		return eachElement(ctx, state, key, n, f)
	})
	if err != nil {
		return fmt.Errorf("elements of %s: %w", key, err)
	}
	return nil
}

func exportValue(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, out *tar.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := state.ReadValue(ctx, &statev1.ReadValueRequest{User: string(key.User), Key: []byte(key.Key)})
	if err != nil {
		return err
	}
	size, got := int64(0), int64(0)
	for first := true; ; first = false {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && (first || got < size):
			return cutOff(key, got, size)
		case errors.Is(err, io.EOF):
			return nil
		case first && fault.From(err) != nil && fault.From(err).Kind == fault.NotFound: // deleted since it was listed
			return nil
		case err != nil:
			return err
		}
		if first {
			if size, err = exportHeader(key, m.GetInfo(), out); err != nil {
				return err
			}
		}
		n := int64(len(m.GetData()))
		if got += n; got > size || n == 0 && !first {
			return notSaid(key, size, n)
		}
		if _, err := out.Write(m.GetData()); err != nil {
			return err
		}
	}
}

func exportHeader(key skein.StateKey, i *statev1.ValueInfo, out *tar.Writer) (size int64, err error) {
	if i == nil || i.GetSize() < 0 {
		return 0, badAnswer("says that %s has %d bytes", key, i.GetSize())
	}
	var expires time.Time
	if i.GetExpireTime() != nil {
		expires = i.GetExpireTime().AsTime()
	}
	return i.GetSize(), out.WriteHeader(archive.Value(url.PathEscape(key.Key), i.GetSize(), i.GetVersion(), i.GetUpdateTime().AsTime(), expires))
}

// eachElement calls f with the first n, or all for 0.
func eachElement(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, n int64, f func([]byte) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := state.ReadElements(ctx, &statev1.ReadElementsRequest{User: string(key.User), Key: []byte(key.Key), Count: n})
	for err == nil {
		var m *statev1.ReadElementsResponse
		m, err = stream.Recv()
		if err == nil && len(m.GetElements()) == 0 {
			err = notSaid(key, 0, 0)
		}
		for _, e := range m.GetElements() {
			if err == nil {
				err = f(e)
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

func (a *app) importStateCmd() *cobra.Command {
	return &cobra.Command{
		Use: "import USER [FILE]", Short: "Store what export wrote; other values stay", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			source := "-"
			if len(args) == 2 {
				source = args[1]
			}
			from, _, err := a.source(source)
			if err != nil {
				return err
			}
			defer func() { _ = from.Close() }()
			state, err := a.stateClient()
			if err != nil {
				return err
			}
			n := 0
			for in := archive.NewReader(from); ; {
				f, err := in.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err == nil && f.Typeflag == tar.TypeReg {
					if err = a.importValue(cmd.Context(), state, args[0], f, in); err != nil {
						err = fmt.Errorf("%s: %w", clipped(f.Name, 200), err)
					}
				}
				if err != nil {
					return fmt.Errorf("after %d values: %w", n, err)
				}
				if !archive.HasElements(f) {
					n++
				}
			}
			if a.json() {
				return a.printJSON(map[string]any{"values": n})
			}
			_, err = fmt.Fprintf(a.stdout, "%d values\n", n)
			return err
		},
	}
}

func (a *app) importValue(ctx context.Context, state statev1.StateServiceClient, user string, f *tar.Header, in io.Reader) error {
	key, err := archive.Key(user, f)
	if err != nil {
		return err
	}
	if archive.HasElements(f) {
		_, err := state.ClearElements(ctx, &statev1.ClearElementsRequest{User: user, Key: []byte(key.Key)})
		if err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
		return archive.ReadElements(key, in, func(e []byte) error {
			_, err := state.AppendElement(ctx, &statev1.AppendElementRequest{User: user, Key: []byte(key.Key), Data: e})
			return err
		})
	}
	if _, err := a.sendValue(ctx, state, key, in, f.Size); err != nil {
		return err
	}
	left, err := archive.Left(key, f)
	if left > 0 {
		_, err = state.SetExpiry(ctx, &statev1.SetExpiryRequest{User: user, Key: []byte(key.Key), TimeToLive: durationpb.New(left)})
	}
	return err
}
