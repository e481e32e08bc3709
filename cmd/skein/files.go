package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"skein.dev"
	"skein.dev/platform/service"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

func (a *app) filesCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "files", Short: "Manage the files that a user's functions read",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	type run func(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, rest []string) error
	one := func(use, short string, least, most int, run run) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.RangeArgs(least, most),
			RunE: func(cmd *cobra.Command, args []string) error {
				user, path, err := splitRef(args[0], "PATH")
				if err != nil {
					return err
				}
				p, err := skein.NewFilePath(user, path)
				if err != nil {
					return err
				}
				fs, err := a.fsClient()
				if err != nil {
					return err
				}
				return run(cmd.Context(), fs, p, args[1:])
			},
		}
	}
	var cond condition
	put := one("put USER/PATH FILE", "Create or replace a file", 2, 2, func(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, rest []string) error {
		return a.putFile(ctx, fs, p, rest[0], cond)
	})
	put.Flags().BoolVar(&cond.absent, "if-absent", false, "only if there is no such file")
	put.Flags().StringVar(&cond.digest, "if-digest", "", "only if the file has this `SHA-256`")
	put.Long = `Create or replace a file; functions see the new content all at once. "-" for FILE reads stdin. A large FILE is sent by blocks,
those that the service lacks: a put that broke, repeated, goes on where it was.`
	var offset, length int64
	get := one("get USER/PATH [FILE]", "Write a file to stdout, or to FILE", 1, 2, func(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, rest []string) error {
		return a.getFile(ctx, fs, p, rest, offset, length)
	})
	get.Long = `Write a file to stdout, or to FILE. What came before a failure is kept beside FILE, and the next get goes on there.`
	get.Flags().Int64Var(&offset, "offset", 0, "first `byte` wanted")
	get.Flags().Int64Var(&length, "length", 0, "how many `bytes`; 0 for all to the end")
	var recursive bool
	var ifDigest string
	remove := one("delete USER/PATH", "Remove a file, or with -r all that lie below a path", 1, 1, func(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, _ []string) error {
		if recursive {
			return a.removeTree(ctx, fs, p)
		}
		_, err := fs.DeleteFile(ctx, &fsv1.DeleteFileRequest{User: string(p.User), Path: p.Path, IfDigest: ifDigest})
		return err
	})
	remove.Flags().StringVar(&ifDigest, "if-digest", "", "only if the file has this `SHA-256`")
	remove.Aliases = []string{"rm"}
	remove.Flags().BoolVarP(&recursive, "recursive", "r", false, "all files below PATH/")
	remove.MarkFlagsMutuallyExclusive("recursive", "if-digest")
	cmd.AddCommand(
		put, get, a.listFilesCmd(),
		one("stat USER/PATH", "Show a file's size and digest", 1, 1, func(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, _ []string) error {
			resp, err := fs.StatFile(ctx, &fsv1.StatFileRequest{User: string(p.User), Path: p.Path})
			if err != nil {
				return err
			}
			return a.printFile(resp.GetFile())
		}),
		remove, a.copyFilesCmd(), a.syncFilesCmd(),
	)
	return cmd
}

// condition is what must hold for a file to be replaced. Its zero value asks for nothing.
type condition struct {
	absent bool
	digest string
}

func (a *app) putFile(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, name string, cond condition) error {
	body, total, err := a.source(name)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	bar := a.progress("put", total)
	defer bar.done()
	file, err := putContent(ctx, fs, p, body, total, cond, bar)
	bar.done()
	if err != nil {
		return err
	}
	return a.printFile(file)
}

// putContent sends body as a shared file, the large ones by blocks. total is -1 if nobody knows.
func putContent(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, body io.Reader, total int64, cond condition, bar *progress) (*fsv1.File, error) {
	if f, ok := body.(*os.File); ok && total >= inBlocks {
		return putBlocks(ctx, fs, p, f, total, cond, bar)
	}
	ctx, cancel := context.WithCancel(ctx) // an error on our side must not end the stream in good order
	defer cancel()
	stream, err := fs.PutFile(ctx)
	if err != nil {
		return nil, err
	}
	req := &fsv1.PutFileRequest{User: string(p.User), Path: p.Path, IfAbsent: cond.absent, IfDigest: cond.digest}
	err = service.Frames(body, func(data []byte) error {
		req.Data = data
		err := stream.Send(req)
		req = &fsv1.PutFileRequest{}
		bar.add(len(data))
		return err
	})
	if err != nil {
		return nil, err
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetFile(), err
}

func (a *app) getFile(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, rest []string, offset, length int64) error {
	toStdout, all := len(rest) == 0 || rest[0] == "-", offset == 0 && length == 0
	if all && !toStdout {
		if info, err := os.Stat(rest[0]); err != nil || info.Mode().IsRegular() {
			bar := a.progress("get", -1)
			defer bar.done()
			root, err := os.OpenRoot(filepath.Dir(rest[0]))
			if err != nil {
				return err
			}
			to := place{path: filepath.Base(rest[0]), in: root}
			defer to.close()
			return getWhole(ctx, fs, p, to, bar)
		}
	}
	stream, err := fs.GetFile(ctx, &fsv1.GetFileRequest{User: string(p.User), Path: p.Path, Offset: offset, Length: length})
	if err != nil {
		return err
	}
	digest, sum := "", sha256.New()
	copyTo := func(w io.Writer) error {
		err := a.receive(bytesOf{p, offset, length}, func() ([]byte, int64, error) {
			resp, err := stream.Recv()
			if f := resp.GetFile(); f != nil {
				digest = f.GetDigest()
			}
			if all {
				sum.Write(resp.GetData())
			}
			return resp.GetData(), resp.GetFile().GetSize(), err
		}, w)
		if err == nil && all && hex.EncodeToString(sum.Sum(nil)) != digest {
			err = notContent(p)
		}
		return err
	}
	if toStdout {
		return copyTo(a.stdout)
	}
	return replaceFile(rest[0], func(f *os.File) error { return copyTo(f) })
}

// replaceFile lets write fill a new file that takes name's place only when it is whole. What is no regular file, such as
// /dev/null, is written to as it is.
func replaceFile(name string, write func(*os.File) error) (err error) {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return errors.Join(write(f), f.Close())
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func (a *app) printFile(f *fsv1.File) error {
	return a.record(f, func(w *tabwriter.Writer) {
		row(w, "file", f.GetUser()+"/"+f.GetPath())
		row(w, "size", size(f.GetSize()))
		row(w, "digest", "sha256:"+f.GetDigest())
		row(w, "updated", moment(f.GetUpdateTime()))
	})
}

func (a *app) listFilesCmd() *cobra.Command {
	var shallow bool
	cmd := &cobra.Command{
		Use: "list USER[/PREFIX]", Aliases: []string{"ls"}, Short: "List a user's files in the order of their paths", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, prefix, _ := strings.Cut(args[0], "/")
			user, err := skein.ParseUser(name)
			if err != nil {
				return err
			}
			fs, err := a.fsClient()
			if err != nil {
				return err
			}
			all := &fsv1.ListFilesResponse{}
			err = pages(0, func(size int32, token string) (int, page, error) {
				resp, err := fs.ListFiles(cmd.Context(), &fsv1.ListFilesRequest{
					User: string(user), Prefix: prefix, PageSize: size, PageToken: token, Shallow: shallow,
				})
				all.Files = append(all.Files, resp.GetFiles()...)
				all.Directories = append(all.Directories, resp.GetDirectories()...)
				return len(resp.GetFiles()), resp, err
			})
			if err != nil {
				return err
			}
			return a.record(all, func(w *tabwriter.Writer) {
				row(w, "PATH", "SIZE", "AGE", "DIGEST")
				for _, d := range all.GetDirectories() {
					row(w, d, "-", "-", "-")
				}
				for _, f := range all.GetFiles() {
					row(w, f.GetPath(), size(f.GetSize()), age(f.GetUpdateTime()), fmt.Sprintf("%.12s", f.GetDigest()))
				}
			})
		},
	}
	cmd.Flags().BoolVar(&shallow, "shallow", false, "one level: give what lies deeper once, as a directory")
	return cmd
}
