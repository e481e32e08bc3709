package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	statev1 "skein.dev/proto/skein/state/v1"
)

func (a *app) resizeStateCmd() *cobra.Command {
	cmd := a.oneValue("resize USER/KEY SIZE", "Cut a value, or let it grow by zeros", 2, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, rest []string) error {
		size, err := integer(rest[0], "SIZE")
		if err != nil {
			return err
		}
		resp, err := state.ResizeValue(ctx, &statev1.ResizeValueRequest{User: string(key.User), Key: []byte(key.Key), Size: size})
		if err != nil {
			return err
		}
		return a.printValue(resp.GetInfo())
	})
	cmd.Args = cobra.ExactArgs(2)
	return cmd
}

func (a *app) addStateCmd() *cobra.Command {
	var offset int64
	cmd := a.oneValue("add USER/KEY DELTA", "Add to 8 bytes of a value, a little-endian integer, atomically; \"--\" goes before a negative DELTA", 2, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, rest []string) error {
		delta, err := integer(rest[0], "DELTA")
		if err != nil {
			return err
		}
		resp, err := state.AddInt64(ctx, &statev1.AddInt64Request{User: string(key.User), Key: []byte(key.Key), Offset: offset, Delta: delta})
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(map[string]any{"value": resp.GetValue(), "info": valueJSON(resp.GetInfo())})
		}
		_, err = fmt.Fprintln(a.stdout, resp.GetValue())
		return err
	})
	cmd.Args = cobra.ExactArgs(2)
	cmd.Flags().Int64Var(&offset, "offset", 0, "first of the 8 `bytes`")
	return cmd
}

func integer(text, what string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, usagef("%s: %q is not an integer of 64 bits", what, text)
	}
	return n, nil
}

func (a *app) expireStateCmd() *cobra.Command {
	cmd := a.oneValue("expire USER/KEY TTL", "Let a value end by itself: after TTL, such as 90s or 24h, or never", 2, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, rest []string) error {
		req := &statev1.SetExpiryRequest{User: string(key.User), Key: []byte(key.Key)}
		if rest[0] != "never" {
			ttl, err := time.ParseDuration(rest[0])
			if err != nil {
				return usagef("TTL: %q is neither a duration nor \"never\"", rest[0])
			}
			req.TimeToLive = durationpb.New(ttl)
		}
		resp, err := state.SetExpiry(ctx, req)
		if err != nil {
			return err
		}
		return a.printValue(resp.GetInfo())
	})
	cmd.Args = cobra.ExactArgs(2)
	return cmd
}

func (a *app) elementsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "elements", Short: "Read and write the list of elements beside a value",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var value string
	add := a.oneValue("append USER/KEY [FILE]", "Add an element", 2, func(ctx context.Context, cmd *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, rest []string) error {
		body, _, err := a.body(cmd, &value, rest)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		data, err := payload(body, "the element", "add it in pieces")
		if err != nil {
			return err
		}
		resp, err := state.AppendElement(ctx, &statev1.AppendElementRequest{User: string(key.User), Key: []byte(key.Key), Data: data})
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(map[string]any{"index": resp.GetIndex()})
		}
		_, err = fmt.Fprintln(a.stdout, resp.GetIndex())
		return err
	})
	add.Long = add.Short + ". The bytes come from --value, from FILE (\"-\" for stdin), or from what is piped in."
	add.Flags().StringVar(&value, "value", "", "the `bytes`, as they stand")

	var index, count int64
	list := a.oneValue("list USER/KEY", "List elements in their order", 1, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, _ []string) error {
		return a.listElements(ctx, state, key, index, count)
	})
	list.Flags().Int64Var(&index, "index", 0, "`place` of the first one wanted")
	list.Flags().Int64Var(&count, "count", 0, "how `many`; 0 for all to the end")
	cmd.AddCommand(add, list, a.oneValue("clear USER/KEY", "Remove all elements", 1, func(ctx context.Context, _ *cobra.Command, state statev1.StateServiceClient, key skein.StateKey, _ []string) error {
		_, err := state.ClearElements(ctx, &statev1.ClearElementsRequest{User: string(key.User), Key: []byte(key.Key)})
		return err
	}))
	return cmd
}

// listElements writes a line for each: bytes that are no printable text are quoted, or, with --json, in base64.
func (a *app) listElements(ctx context.Context, state statev1.StateServiceClient, key skein.StateKey, index, count int64) error {
	stream, err := state.ReadElements(ctx, &statev1.ReadElementsRequest{User: string(key.User), Key: []byte(key.Key), Index: index, Count: count})
	if err != nil {
		return err
	}
	docs := []map[string]any{}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, e := range resp.GetElements() {
			if a.json() {
				doc := map[string]any{}
				binary("data", e, doc)
				docs = append(docs, doc)
			} else if _, err := fmt.Fprintln(a.stdout, printable(string(e))); err != nil {
				return err
			}
		}
	}
	if a.json() {
		return a.printJSON(map[string]any{"elements": docs})
	}
	return nil
}

func (a *app) watchStateCmd() *cobra.Command {
	var changes int
	cmd := &cobra.Command{
		Use: "watch USER KEY...", Short: "Tell the versions of values, now and at each change; 0 is no value", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &statev1.WatchValuesRequest{User: args[0]}
			for _, k := range args[1:] {
				if _, err := skein.NewStateKey(args[0], k); err != nil {
					return err
				}
				req.Keys = append(req.Keys, []byte(k))
			}
			state, err := a.stateClient()
			if err != nil {
				return err
			}
			stream, err := state.WatchValues(cmd.Context())
			if err != nil {
				return err
			}
			if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			for n := 0; changes == 0 || n < changes; n++ {
				m, err := stream.Recv()
				if err != nil {
					return err
				}
				if err := a.printNews(m); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&changes, "changes", 0, "end after so `many` lines; 0 for never")
	return cmd
}

func (a *app) printNews(m *statev1.WatchValuesResponse) error {
	if a.json() {
		doc := map[string]any{"user": m.GetUser(), "version": m.GetVersion()}
		binary("key", m.GetKey(), doc)
		raw, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		return a.printLine(raw)
	}
	v := &statev1.ValueInfo{User: m.GetUser(), Key: m.GetKey()}
	_, err := fmt.Fprintf(a.stdout, "%s %d\n", printable(valueName(v)), m.GetVersion())
	return err
}

func (a *app) usageCmd() *cobra.Command {
	return &cobra.Command{
		Use: "usage USER", Short: "Show how much a user has stored, and may store", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			state, err := a.stateClient()
			if err != nil {
				return err
			}
			u, err := state.GetUsage(cmd.Context(), &statev1.GetUsageRequest{User: args[0]})
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(map[string]any{
					"bytes": u.GetBytes(), "values": u.GetValues(), "bytesLimit": u.GetBytesLimit(), "valuesLimit": u.GetValuesLimit(),
				})
			}
			return a.table(func(w *tabwriter.Writer) {
				row(w, "bytes", size(u.GetBytes()), "of", limit(size(u.GetBytesLimit()), u.GetBytesLimit()))
				row(w, "values", u.GetValues(), "of", limit(strconv.FormatInt(u.GetValuesLimit(), 10), u.GetValuesLimit()))
			})
		},
	}
}

func limit(text string, n int64) string {
	if n == 0 {
		return "any number"
	}
	return text
}
