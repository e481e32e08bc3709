package main

import (
	"archive/tar"
	"context"
	le "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// PAX records of an exported value; GET /v1/state/{user}:export writes the same.
const (
	paxVersion = "SKEIN.version"
	paxExpires = "SKEIN.expires"
	// A file with this record has so many elements of the value before it, each behind the 4 bytes of its length, little-endian.
	paxElements   = "SKEIN.elements"
	elementsName  = "?elements"
	elementPrefix = 4
	mostElement   = 1 << 20
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
						err = exportElements(cmd.Context(), state, v, out)
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
			pax := map[string]string{paxVersion: strconv.FormatInt(i.GetVersion(), 10)}
			if i.GetExpireTime() != nil {
				pax[paxExpires] = i.GetExpireTime().AsTime().Format(time.RFC3339Nano)
			}
			err := out.WriteHeader(&tar.Header{
				Typeflag: tar.TypeReg, Name: url.PathEscape(string(i.GetKey())), Size: i.GetSize(), Mode: 0o644, ModTime: i.GetUpdateTime().AsTime(),
				Format: tar.FormatPAX, PAXRecords: pax,
			})
			if err != nil {
				return err
			}
		}
		if _, err := out.Write(m.GetData()); err != nil {
			return err
		}
	}
}

// exportElements reads them twice, for their size comes first: those that were there the first time.
func exportElements(ctx context.Context, state statev1.StateServiceClient, v *statev1.ValueInfo, out *tar.Writer) error {
	n, size := int64(0), int64(0)
	err := eachElement(ctx, state, v, 0, func(e []byte) error { n, size = n+1, size+elementPrefix+int64(len(e)); return nil })
	if n == 0 || err != nil {
		return err
	}
	err = out.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: url.PathEscape(string(v.GetKey())) + elementsName, Size: size, Mode: 0o644, Format: tar.FormatPAX,
		PAXRecords: map[string]string{paxElements: strconv.FormatInt(n, 10)},
	})
	if err != nil {
		return err
	}
	return eachElement(ctx, state, v, n, func(e []byte) error {
		_, err := out.Write(append(le.LittleEndian.AppendUint32(nil, uint32(len(e))), e...))
		return err
	})
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

// importElements makes those of a file the value's.
func importElements(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, in io.Reader) error {
	bad := fault.Invalid.New("BAD_ARCHIVE", "the elements of %s are cut off, or are none", key)
	_, err := state.ClearElements(ctx, &statev1.ClearElementsRequest{User: string(key.User), Key: []byte(key.Key)})
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	var prefix [elementPrefix]byte
	for {
		if _, err := io.ReadFull(in, prefix[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return bad
		}
		size := le.LittleEndian.Uint32(prefix[:])
		if size > mostElement {
			return bad
		}
		element := make([]byte, size)
		if _, err := io.ReadFull(in, element); err != nil {
			return bad
		}
		if _, err := state.AppendElement(ctx, &statev1.AppendElementRequest{User: string(key.User), Key: []byte(key.Key), Data: element}); err != nil {
			return err
		}
	}
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
				if _, elements := f.PAXRecords[paxElements]; !elements {
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
	_, elements := f.PAXRecords[paxElements]
	name := f.Name
	if elements {
		name = strings.TrimSuffix(name, elementsName)
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return fault.Invalid.New("BAD_NAME", "the key %.80q is not percent-encoded: %s", f.Name, err)
	}
	key, err := skein.NewStateKey(user, name)
	if err != nil {
		return err
	}
	if elements {
		return importElements(ctx, state, key, in)
	}
	if _, err := a.sendValue(ctx, state, key, in, f.Size); err != nil {
		return err
	}
	if text := f.PAXRecords[paxExpires]; text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return fault.Invalid.New("BAD_EXPIRY", "the expiry %.40q of %s is no time", text, key)
		}
		left := durationpb.New(max(time.Millisecond, time.Until(at).Truncate(time.Millisecond)))
		_, err = state.SetExpiry(ctx, &statev1.SetExpiryRequest{User: user, Key: []byte(name), TimeToLive: left})
		return err
	}
	return nil
}
