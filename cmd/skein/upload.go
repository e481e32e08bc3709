package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"skein.dev"
	"skein.dev/platform/service"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

func (a *app) uploadCmd() *cobra.Command {
	var requestID string
	cmd := &cobra.Command{
		Use:   "upload USER/FUNCTION FILE.wasm",
		Short: "Upload a module as a function's new version",
		Long:  `Upload a module as a function's new version. "-" for the file reads stdin.`,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := skein.ParseFunction(args[0])
			if err != nil {
				return err
			}
			resp, err := a.uploadModule(cmd.Context(), f, args[1], requestID)
			if err != nil {
				return err
			}
			return a.record(resp, func(w *tabwriter.Writer) {
				note := ""
				if !resp.GetCreated() {
					note = "  (these were its bytes already)"
				}
				v := resp.GetFunction().GetCurrent()
				_, _ = fmt.Fprintf(w, "%s  version %d  sha256:%s%s\n", f, v.GetNumber(), v.GetDigest(), note)
			})
		},
	}
	cmd.Flags().StringVar(&requestID, "request-id", "", "`id` that makes a repeated upload give the first one's version")
	return cmd
}

func (a *app) uploadModule(ctx context.Context, f skein.Function, file, requestID string) (*uploadv1.UploadResponse, error) {
	body, total, err := a.source(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	client, err := a.uploadClient()
	if err != nil {
		return nil, err
	}
	// Leaving early must break the stream: ended in good order, it would store half a module.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Upload(ctx)
	if err != nil {
		return nil, err
	}
	bar := a.progress("upload", total)
	defer bar.done()
	req := &uploadv1.UploadRequest{User: string(f.User), Function: f.Name, RequestId: requestID}
	err = service.Frames(bar.reading(body), func(data []byte) error {
		req.Data = data
		err := stream.Send(req)
		req = &uploadv1.UploadRequest{}
		return err
	})
	if err != nil {
		return nil, err
	}
	return stream.CloseAndRecv()
}
