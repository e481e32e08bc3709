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
			err = pages(0, func(size int32, token string) (int, string, error) {
				resp, err := state.ListValues(cmd.Context(), &statev1.ListValuesRequest{
					User: args[0], Prefix: []byte(prefix), PageSize: size, PageToken: token,
				})
				for _, v := range resp.GetValues() {
					if err == nil {
						err = exportValue(cmd.Context(), state, v, out)
					}
					if err == nil {
						err = archive.WriteElements(out, url.PathEscape(string(v.GetKey())), func(n int64, f func([]byte) error) error {
							return eachElement(cmd.Context(), state, v, n, f)
						})
					}
				}
				return len(resp.GetValues()), resp.GetNextPageToken(), err
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

func exportValue(ctx context.Context, state statev1.StateServiceClient, v *statev1.ValueInfo, out *tar.Writer) error {
	stream, err := state.ReadValue(ctx, &statev1.ReadValueRequest{User: v.GetUser(), Key: v.GetKey()})
	if err != nil {
		return err
	}
	for begun := false; ; begun = true {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if e := fault.From(err); !begun && e.Kind == fault.NotFound { // deleted since it was listed
				return nil
			}
			return err
		}
		if i := m.GetInfo(); !begun {
			var expires time.Time
			if i.GetExpireTime() != nil {
				expires = i.GetExpireTime().AsTime()
			}
			err := out.WriteHeader(archive.Value(url.PathEscape(string(i.GetKey())), i.GetSize(), i.GetVersion(), i.GetUpdateTime().AsTime(), expires))
			if err != nil {
				return err
			}
		}
		if _, err := out.Write(m.GetData()); err != nil {
			return err
		}
	}
}

// eachElement calls f with the first n, or all for 0.
func eachElement(ctx context.Context, state statev1.StateServiceClient, v *statev1.ValueInfo, n int64, f func([]byte) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := state.ReadElements(ctx, &statev1.ReadElementsRequest{User: v.GetUser(), Key: v.GetKey(), Count: n})
	for err == nil {
		var m *statev1.ReadElementsResponse
		m, err = stream.Recv()
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
			for in := tar.NewReader(from); ; {
				f, err := in.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err == nil && f.Typeflag == tar.TypeReg {
					err = a.importValue(cmd.Context(), state, args[0], f, in)
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
