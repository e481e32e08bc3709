package upload

import (
	"slices"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// head is the object functions/USER/NAME/current: what a function is now. Every change of a function is one replacement
// of it, on the condition that nobody else replaced it meanwhile; what isn't named by it isn't there. A deleted function
// keeps its head, so that numbers go on behind those that were used.
type head struct {
	Deleted bool    `json:"deleted,omitempty"`
	First   int64   `json:"first"`             // least number of a version since the function was last deleted
	Latest  int64   `json:"latest"`            // greatest number that was ever current, or gone with a deletion
	Current *record `json:"current,omitempty"` // nil only if Deleted
	// Updated is when Current became current.
	Updated  time.Time `json:"updated"`
	Settings Settings  `json:"settings,omitzero"`
	Config   string    `json:"config,omitempty"`   // digest of the object that executors read of the settings
	Revision int64     `json:"revision,omitempty"` // how often they were changed, a deletion included
	Requests []request `json:"requests,omitempty"` // the last ones that had an id, oldest first
}

// record is the object functions/USER/NAME/versions/NUMBER: a version. It is never changed.
type record struct {
	Number    int64     `json:"number"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Created   time.Time `json:"created"`
	Kind      string    `json:"kind"`
	Imports   []string  `json:"imports,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
}

// request is one that was answered and may be repeated.
type request struct {
	ID      string `json:"id"`
	Op      string `json:"op"`               // upload, rollback, configure or delete
	Digest  string `json:"digest,omitempty"` // of the module or the settings
	Number  int64  `json:"number,omitempty"`
	Created bool   `json:"created,omitempty"`
}

// requestsKept bounds how far back a repeated request is recognised.
const requestsKept = 64

func (h head) exists() bool { return h.Current != nil && !h.Deleted }

// answered finds the request that id was used for. It is an error if that was another one than want, but for its answer.
func (h head) answered(want request) (request, bool, error) {
	if want.ID == "" {
		return request{}, false, nil
	}
	i := slices.IndexFunc(h.Requests, func(r request) bool { return r.ID == want.ID })
	if i < 0 {
		return request{}, false, nil
	}
	r := h.Requests[i]
	if r.Op != want.Op || r.Digest != want.Digest {
		return request{}, false, reused(want.ID)
	}
	return r, true, nil
}

func reused(id string) error {
	return fault.Exists.New("REQUEST_ID_REUSED", "request id %.128q was used for something else", id).
		WithHint("a repeated request must be the same in all; take a new id for a new one")
}

// with remembers a request, if it has an id.
func (h head) with(r request) head {
	if r.ID == "" {
		return h
	}
	h.Requests = append(slices.Clip(h.Requests), r)
	h.Requests = h.Requests[max(0, len(h.Requests)-requestsKept):]
	return h
}

// owns says whether number n is a version of the function as it is. A record with a number behind Latest is on its way:
// its upload hasn't ended, or never will.
func (h head) owns(n int64) bool { return h.exists() && n >= h.First && n <= h.Latest }

// gone says whether the version of number n was removed by a deletion, even if the function came back since.
func (h head) gone(n int64) bool {
	if h.Deleted {
		return n <= h.Latest
	}
	return n < h.First
}

// promote makes a new version current, unless a greater number was meanwhile.
func (h head) promote(v record) head {
	if v.Number <= h.Latest {
		return h
	}
	if !h.exists() {
		h.First = h.Latest + 1
	}
	h.Deleted, h.Latest, h.Current, h.Updated = false, v.Number, &v, v.Created
	return h
}

// roll makes version v current again.
func (h head) roll(v record, now time.Time) head {
	h.Current, h.Updated = &v, now
	return h
}

// bury deletes the function. latest is the greatest number of a record that was seen: its upload must take another.
func (h head) bury(latest int64, now time.Time) head {
	return head{Deleted: true, Latest: max(h.Latest, latest), Updated: now, Revision: h.Revision + 1, Requests: h.Requests}
}

func (v record) version(f skein.Function) (Version, error) {
	d, err := skein.ParseDigest(v.Digest)
	if err != nil {
		return Version{}, corrupt(versionKey(f, v.Number), err)
	}
	kind := prepare.Reactor
	if v.Kind == prepare.Command.String() {
		kind = prepare.Command
	}
	return Version{skein.Version{Function: f, Number: v.Number, Digest: d}, v.Size, v.Created, kind, v.Imports}, nil // Config is the head's
}
