package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"skein.dev"
	"skein.dev/platform/service"
	statev1 "skein.dev/proto/skein/state/v1"
)

func (a *app) stateCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "state", Short: "Read and write the values that functions share",
		Long: `Read and write the values that functions share. A value is named USER/KEY; the key is everything behind the
first '/', byte for byte.`,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	one := a.oneValue
	var offset, length int64
	get := one("get USER/KEY", "Write a value to stdout", 1, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, _ []string) error {
		return a.getValue(ctx, state, key, offset, length)
	})
	get.Flags().Int64Var(&offset, "offset", 0, "first `byte` wanted")
	get.Flags().Int64Var(&length, "length", 0, "how many `bytes`; 0 for all to the end")

	var value string
	var at int64
	put := one("put USER/KEY [FILE]", "Replace a value, or a range of it", 2, func(ctx context.Context, cmd *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, rest []string) error {
		body, total, err := a.body(cmd, &value, rest)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		if cmd.Flags().Changed("offset") {
			return a.setRange(ctx, state, key, at, body)
		}
		return a.putValue(ctx, state, key, body, total)
	})
	put.Flags().Int64Var(&at, "offset", 0, "overwrite from this `byte` on and keep the rest")

	appendCmd := one("append USER/KEY [FILE]", "Add bytes at a value's end, atomically", 2, func(ctx context.Context, cmd *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, rest []string) error {
		body, _, err := a.body(cmd, &value, rest)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		data, err := payload(body, "what is appended", "append it in pieces")
		if err != nil {
			return err
		}
		resp, err := state.AppendValue(ctx, &statev1.AppendValueRequest{User: string(key.User), Key: []byte(key.Key), Data: data})
		if err != nil {
			return err
		}
		return a.printValue(resp.GetInfo())
	})
	for _, c := range []*cobra.Command{put, appendCmd} {
		c.Long = c.Short + ". The bytes come from --value, from FILE (\"-\" for stdin), or from what is piped in."
		c.Flags().StringVar(&value, "value", "", "the `bytes`, as they stand")
	}

	cmd.AddCommand(
		get, put, appendCmd,
		one("stat USER/KEY", "Show a value's size and version", 1, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, _ []string) error {
			resp, err := state.StatValue(ctx, &statev1.StatValueRequest{User: string(key.User), Key: []byte(key.Key)})
			if err != nil {
				return err
			}
			return a.printValue(resp.GetInfo())
		}),
		one("delete USER/KEY", "Remove a value", 1, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, _ []string) error {
			_, err := state.DeleteValue(ctx, &statev1.DeleteValueRequest{User: string(key.User), Key: []byte(key.Key)})
			return err
		}),
		a.listStateCmd(), a.resizeStateCmd(), a.expireStateCmd(), a.addStateCmd(), a.elementsCmd(), a.watchStateCmd(),
		a.usageCmd(), a.exportStateCmd(), a.importStateCmd(),
	)
	return cmd
}

type runOne func(ctx context.Context, cmd *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, rest []string) error

// oneValue is a command about the value that its first argument names.
func (a *app) oneValue(use, short string, most int, run runOne) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.RangeArgs(1, most),
		RunE: func(cmd *cobra.Command, args []string) error {
			user, name, err := splitRef(args[0], "KEY")
			if err != nil {
				return err
			}
			key, err := skein.NewStateKey(user, name)
			if err != nil {
				return err
			}
			state, err := a.stateClient()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cmd, state, key, args[1:])
		},
	}
}

func (a *app) getValue(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, offset, length int64) error {
	stream, err := state.ReadValue(ctx, &statev1.ReadValueRequest{User: string(key.User), Key: []byte(key.Key), Offset: offset, Length: length})
	if err != nil {
		return err
	}
	return a.receive(bytesOf{key, offset, length}, func() ([]byte, int64, error) {
		resp, err := stream.Recv()
		return resp.GetData(), resp.GetInfo().GetSize(), err
	}, a.stdout)
}

// bytesOf is the bytes of a value or file that were asked for; length 0 is all to the end.
type bytesOf struct {
	of             fmt.Stringer
	offset, length int64
}

// due is how many they are of a total.
func (s bytesOf) due(total int64) int64 {
	n := max(0, total-s.offset)
	if s.length > 0 {
		n = min(n, s.length)
	}
	return n
}

// receive copies the frames of a stream; the first one knows the size of the whole.
func (a *app) receive(what bytesOf, next func() (data []byte, total int64, err error), to io.Writer) error {
	var bar *progress
	due, got := int64(0), int64(0)
	for {
		data, total, err := next()
		if errors.Is(err, io.EOF) {
			if got < due || bar == nil {
				return cutOff(what.of, got, due)
			}
			return nil
		}
		if err != nil {
			return err
		}
		first := bar == nil
		if first {
			if total < 0 {
				return badAnswer("says that %s has %d bytes", what.of, total)
			}
			due = what.due(total)
			bar = a.progress("get", due)
			if terminal(to) {
				bar.to = nil // the bytes themselves show the progress
			}
			to = bar.writing(to)
			defer bar.done()
		}
		n := int64(len(data))
		if got += n; got > due || n == 0 && !first {
			return notSaid(what.of, due, n)
		}
		if _, err := to.Write(data); err != nil {
			return err
		}
	}
}

func (a *app) putValue(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, body io.Reader, total int64) error {
	info, err := a.sendValue(ctx, state, key, body, total)
	if err != nil {
		return err
	}
	return a.printValue(info)
}

func (a *app) sendValue(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, body io.Reader, total int64) (*statev1.ValueInfo, error) {
	ctx, cancel := context.WithCancel(ctx) // an error on our side must not end the stream in good order
	defer cancel()
	stream, err := state.WriteValue(ctx)
	if err != nil {
		return nil, err
	}
	bar := a.progress("state", total)
	defer bar.done()
	req := &statev1.WriteValueRequest{User: string(key.User), Key: []byte(key.Key)}
	err = service.Frames(bar.reading(body), func(data []byte) error {
		req.Data = data
		err := stream.Send(req)
		req = &statev1.WriteValueRequest{}
		return err
	})
	if err != nil {
		return nil, err
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetInfo(), err
}

func (a *app) setRange(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, at int64, body io.Reader) error {
	data, err := payload(body, "the range", "write it in pieces")
	if err != nil {
		return err
	}
	resp, err := state.SetRange(ctx, &statev1.SetRangeRequest{User: string(key.User), Key: []byte(key.Key), Offset: at, Data: data})
	if err != nil {
		return err
	}
	return a.printValue(resp.GetInfo())
}

// valueJSON is a ValueInfo whose key can be read: protojson would give it as base64.
func valueJSON(v *statev1.ValueInfo) map[string]any {
	doc := map[string]any{"user": v.GetUser(), "size": v.GetSize(), "version": v.GetVersion()}
	if v.GetUpdateTime() != nil {
		doc["updateTime"] = v.GetUpdateTime().AsTime().Format(time.RFC3339Nano)
	}
	if v.GetExpireTime() != nil {
		doc["expireTime"] = v.GetExpireTime().AsTime().Format(time.RFC3339Nano)
	}
	binary("key", v.GetKey(), doc)
	return doc
}

func valueName(v *statev1.ValueInfo) string {
	if !utf8.Valid(v.GetKey()) {
		return v.GetUser() + "/" + printable(string(v.GetKey()))
	}
	return v.GetUser() + "/" + string(v.GetKey())
}

func (a *app) printValue(v *statev1.ValueInfo) error {
	if a.json() {
		return a.printJSON(valueJSON(v))
	}
	return a.table(func(w *tabwriter.Writer) {
		row(w, "value", valueName(v))
		row(w, "size", size(v.GetSize()))
		row(w, "version", v.GetVersion())
		row(w, "updated", moment(v.GetUpdateTime()))
		if v.GetExpireTime() != nil {
			row(w, "expires", moment(v.GetExpireTime()))
		}
	})
}

func (a *app) listStateCmd() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use: "list USER", Short: "List a user's values in the order of their keys", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := skein.ParseUser(args[0])
			if err != nil {
				return err
			}
			state, err := a.stateClient()
			if err != nil {
				return err
			}
			var all []*statev1.ValueInfo
			err = pages(0, func(size int32, token string) (int, page, error) {
				resp, err := state.ListValues(cmd.Context(), &statev1.ListValuesRequest{
					User: string(user), Prefix: []byte(prefix), PageSize: size, PageToken: token,
				})
				all = append(all, resp.GetValues()...)
				return len(resp.GetValues()), resp, err
			})
			if err != nil {
				return err
			}
			return a.printValues(all)
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with it")
	return cmd
}

func (a *app) printValues(all []*statev1.ValueInfo) error {
	if a.json() {
		docs := make([]map[string]any, len(all))
		for i, v := range all {
			docs[i] = valueJSON(v)
		}
		return a.printJSON(map[string]any{"values": docs})
	}
	return a.table(func(w *tabwriter.Writer) {
		row(w, "KEY", "SIZE", "VERSION", "AGE")
		for _, v := range all {
			row(w, valueName(v), size(v.GetSize()), v.GetVersion(), age(v.GetUpdateTime()))
		}
	})
}
