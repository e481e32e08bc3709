package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"skein.dev"
	"skein.dev/platform/fault"
)

// into opens the local directory that a copy goes to. From there on a path leads nowhere else, whatever names the server gives
// and whatever links are there.
func (c *copier) into(to place) (place, error) {
	if !c.dry {
		if err := os.MkdirAll(to.path, 0o755); err != nil {
			return to, err
		}
	}
	root, err := os.OpenRoot(to.path)
	if c.dry && errors.Is(err, fs.ErrNotExist) {
		return to, nil
	}
	return place{path: ".", in: root}, err
}

func (p place) close() {
	if p.in != nil {
		_ = p.in.Close()
	}
}

func (p place) open() (*os.File, error) {
	if p.in != nil {
		return p.in.Open(p.path)
	}
	return os.Open(p.path)
}

func (p place) stat() (os.FileInfo, error) {
	if p.in != nil {
		return p.in.Stat(p.path)
	}
	return os.Stat(p.path)
}

func (p place) unlink() error {
	if p.in != nil {
		return p.in.Remove(p.path)
	}
	return os.Remove(p.path)
}

// listLocal finds regular files. Links below dir are not followed: a tree has an end then, and leads nowhere else.
func listLocal(dir string) (listed, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	if !isDir(dir) {
		return nil, usagef("%s is no directory", dir)
	}
	all := listed{}
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasSuffix(name, ".part") && strings.HasPrefix(e.Name(), ".") {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all[filepath.ToSlash(rel)] = found{size: info.Size()}
		}
		return err
	})
	return all, err
}

// fitLocal refuses what no local directory can hold: to a store a/b is a name like another, and there may be an a beside it.
func (l listed) fitLocal(from place) error {
	for rel := range l {
		for i, r := range rel {
			if _, ok := l[rel[:i]]; ok && r == '/' {
				return fault.Precondition.New("FILE_AND_DIRECTORY", "below %s, %s is a file and %s lies in a directory of that name", from, rel[:i], rel).
					WithHint("rename or delete one of the two, or copy them one by one to other names")
			}
		}
	}
	return nil
}

// partFile is where what came of a file is kept until it is whole.
func partFile(name, digest string) string {
	base := filepath.Base(name)
	if len(base) > 200 { // with what is added, more than the 255 bytes that file systems allow
		base = skein.DigestOf([]byte(base)).String()
	}
	return filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.%.16s.part", base, digest))
}

// inTheWay says what is where name, or a directory above it, should be, if err came from that.
func inTheWay(root *os.Root, name string, err error) error {
	_, ofPath := errors.AsType[*fs.PathError](err)
	_, ofLink := errors.AsType[*os.LinkError](err)
	if !ofPath && !ofLink {
		return err
	}
	segments := strings.Split(name, string(filepath.Separator))
	for i := range segments {
		at, last := filepath.Join(segments[:i+1]...), i == len(segments)-1
		info, gone := root.Lstat(at)
		if gone != nil {
			return err
		}
		whole := filepath.Join(root.Name(), at)
		if info.Mode()&fs.ModeSymlink != 0 && !last {
			if info, gone = root.Stat(at); gone != nil {
				return fault.Precondition.New("IN_THE_WAY", "%s is a link that leads to nothing in %s", whole, root.Name()).
					WithHint("remove the link, or copy to where it leads")
			}
		}
		if info.IsDir() == last {
			is, wanted := "a file", "a directory"
			if last {
				is, wanted = wanted, is
			}
			return fault.Precondition.New("IN_THE_WAY", "%s is %s where %s has to be", whole, is, wanted).
				WithHint("remove or rename it, or copy to another directory")
		}
	}
	return err
}
