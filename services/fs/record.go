package fs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// Where things are. A user's keys are prefixes of no other user's, as names hold no slash.
const (
	blockPrefix = "fs/blocks/" // USER/DIGEST
	namePrefix  = "fs/names/"  // USER/escaped path!
	clockKey    = "fs/swept"   // written by every sweep, for the store's time
)

func blockKey(user skein.User, d skein.Digest) string {
	return blockPrefix + string(user) + "/" + d.String()
}

// escape writes a path so that, with a '!' behind it, no key is a directory of another ("a!" and "a/b!", as some stores
// keep objects as files), keys have the order of paths, and a prefix stays a prefix. Only ' ' and '!' come before or with
// '!', hence theirs; '[' is parted from what MinIO would read as its own "[minio_cache:".
var (
	escape   = strings.NewReplacer(" ", "! ", "!", "!!", "[", "[!")
	unescape = strings.NewReplacer("! ", " ", "!!", "!", "[!", "[")
)

// maxSegment is what file systems allow for a name; MinIO makes one of every segment of a key.
const maxSegment = 255

func nameKey(p skein.FilePath) (string, error) {
	key := namePrefix + string(p.User) + "/" + escape.Replace(p.Path) + "!"
	long := len(key) > blob.MaxKey
	for seg := range strings.SplitSeq(key, "/") {
		long = long || len(seg) > maxSegment
	}
	if long {
		return "", fault.Invalid.New("BAD_NAME", "path %.80q is too long: spaces and the characters ! and [ count twice", p.Path)
	}
	if err := blob.CheckKey(key); err != nil {
		return "", fault.Invalid.New("BAD_NAME", "path %.80q can't be stored: %s", p.Path, err).WithHint("take other names for its directories")
	}
	return key, nil
}

// pathOf reads what nameKey wrote, or a prefix of it that ends in '/'.
func pathOf(user skein.User, key string) string {
	key = strings.TrimPrefix(key, namePrefix+string(user)+"/")
	if !strings.HasSuffix(key, "/") {
		key = strings.TrimSuffix(key, "!")
	}
	return unescape.Replace(key)
}

// record is the content of a name object: 64 hexadecimal digits, a line feed, and this as JSON, of which they are the
// SHA-256. So a damaged record is not taken for a file.
type record struct {
	Size      int64     `json:"size"`
	Digest    string    `json:"digest"`
	BlockSize int64     `json:"block_size"`
	Blocks    []string  `json:"blocks"`
	Modified  time.Time `json:"modified"`
}

// maxRecord bounds a record: one of a file of MaxFile bytes has 2.2 MB.
const maxRecord = blob.MaxConditional

func (f File) record() ([]byte, error) {
	r := record{f.Size, f.Digest.String(), blockSize, make([]string, len(f.blocks)), f.Modified}
	for i, d := range f.blocks {
		r.Blocks[i] = d.String()
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append([]byte(skein.DigestOf(text).String()+"\n"), text...), nil
}

func parseRecord(p skein.FilePath, data []byte) (File, error) {
	bad := func(why string) (File, error) {
		return File{}, fault.DataLoss.New("DIGEST_MISMATCH", "file %s: its record in the store is damaged: %s", p, why).
			WithHint("put the file again, or delete it")
	}
	sum, text, ok := bytes.Cut(data, []byte("\n"))
	if want := skein.DigestOf(text); !ok || string(sum) != hex.EncodeToString(want[:]) {
		return bad("its digest is wrong")
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return bad(err.Error())
	}
	if r.Size < 0 || r.BlockSize <= 0 || r.BlockSize > maxBlock || int64(len(r.Blocks)) != (r.Size+r.BlockSize-1)/r.BlockSize {
		return bad("its numbers don't agree")
	}
	f := File{Path: p, Size: r.Size, Modified: r.Modified, blockSize: r.BlockSize, blocks: make([]skein.Digest, len(r.Blocks))}
	var err error
	if f.Digest, err = skein.ParseDigest(r.Digest); err != nil {
		return bad(err.Error())
	}
	for i, b := range r.Blocks {
		if f.blocks[i], err = skein.ParseDigest(b); err != nil {
			return bad(err.Error())
		}
	}
	return f, nil
}
