package vfs

import (
	"context"

	"skein.dev/abi"
)

// mapUnit is what mappings are multiples of, in bytes.
const mapUnit = 4 << 10

// Mappable says why o's content can't be mapped as a copy: EACCES if it was not opened for reading, ENODEV if it is neither a
// regular file nor /dev/zero.
func (o *Open) Mappable() error {
	switch {
	case !o.readable:
		return abi.EACCES
	case o.typ == Regular, o.typ == CharacterDevice && o.node.device == ZeroDevice:
		return nil
	}
	return abi.ENODEV
}

// Map has place map n bytes, rounded up to 4 KiB, of a file in memory, where o's content from off on is: what o shows of it now, and
// will go on to be. An off and n within the file are the caller's to see to. ENOTSUP if it is to be read instead: it, or a part
// of it, was written by calls, or there is no such file.
func (o *Open) Map(ctx context.Context, off, n int64, place func(fd int, n int64) error) error {
	if n <= 0 {
		return nil
	}
	if o.typ != Regular {
		return abi.ENOTSUP
	}
	o.node.mu.RLock()
	c := &o.node.content
	base, whole := c.base, len(c.own) == 0 && c.base != nil && off+n <= c.size
	if whole { // a lower that shows in part would show more at the end of the last page
		whole = c.below == base.Info().Size
		n = min(n, c.below-off)
	}
	o.node.mu.RUnlock()
	lower, ok := base.(Sealer)
	switch {
	case !whole, !ok:
		return abi.ENOTSUP
	case n <= 0:
		return nil // a hole behind it
	}
	o.table.read.Add(n)
	return lower.Seal(ctx, off, n, func(fd int) error { return place(fd, (n+mapUnit-1)/mapUnit*mapUnit) })
}
