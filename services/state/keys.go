package state

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// A value is stored under keys that share one hash tag, so that Redis Cluster keeps them in one slot and a script may
// change them together. The tag is the user, which can't hold a slash, and the key in base64: no two values share a tag,
// whatever bytes their keys have.
//
//	skein:state:{ann/a2V5}               hash v version, n size, g generation, t update time in µs, x incarnation; b version
//	                                     and bn size when it was last replaced as a whole (if it is one chunk: when it last
//	                                     changed, and what the chunk has); e when it ends, in ms; og, on: the generation
//	                                     replaced last and its size; lb, lm, lc: of the elements, how many bytes they have,
//	                                     how many the largest, and how often they were cleared
//	skein:state:{ann/a2V5}:c:GEN:0 …     chunks of a generation
//	skein:state:{ann/a2V5}:w:GEN         of a value of several: which changed since b, version and length of each. What a chunk
//	                                     has beyond its length are zeros, what is missing before it is lost
//	skein:state:{ann/a2V5}:o:GEN         final version of a replaced generation, while readers may finish it, and its bn
//	skein:state:{ann/a2V5}:r:ID          answer to the request with that id
//	skein:state:{ann/a2V5}:l             list of elements
//	skein:state:{ann/a2V5}:lock :readers see lockScript
//	skein:state:keys:ann                 sorted set of KEY NUL INCARNATION: the index, in a slot of its own
//
// A deleted value leaves v behind for as long as a tombstone lives. An incarnation is the life of a value from creation
// to deletion; see mutate. Changes are published on the channel META:v, with the version, and unlocking on META:lock.
func metaKey(k skein.StateKey) string {
	return "skein:state:{" + string(k.User) + "/" + base64.RawURLEncoding.EncodeToString([]byte(k.Key)) + "}"
}

func chunkKey(k skein.StateKey, gen string, i int64) string {
	return metaKey(k) + ":c:" + gen + ":" + strconv.FormatInt(i, 10)
}

func indexKey(u skein.User) string { return "skein:state:keys:" + string(u) }

func randomHex() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func lockKeys(k skein.StateKey) []string {
	meta := metaKey(k)
	return []string{meta + ":lock", meta + ":readers"}
}

func corrupt(k skein.StateKey, chunk any) error {
	return fault.DataLoss.New("CORRUPT", "Redis has lost bytes of %s (chunk %v)", k, chunk).
		WithHint("restore Redis from a backup, or replace the value")
}

// stretch is bytes of one chunk, from the first to before the last.
type stretch struct{ from, to int64 }

// cut cuts bytes at the chunks.
func cut(from, to int64) (all []stretch) {
	for from < to {
		end := min(to, from-from%chunkSize+chunkSize)
		all = append(all, stretch{from, end})
		from = end
	}
	return all
}

// entry is one of the index.
type entry struct {
	key         skein.StateKey
	incarnation string
}

// String is the entry as it is in the index.
func (e entry) String() string { return e.key.Key + "\x00" + e.incarnation }

// old tells an entry whose creation can't be under way any more.
func (e entry) old() bool {
	stamp, _, _ := strings.Cut(e.incarnation, "-")
	seconds, err := strconv.ParseInt(stamp, 16, 64)
	return err != nil || time.Since(time.Unix(seconds, 0)) > time.Hour
}
