// Package skein holds the nouns of Skein: the types that every service, the command line and the tests share, how they
// are written as text, and what must hold of them. It does no I/O and imports only the standard library; read it first.
package skein

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of names and payloads. They are the same in every service and are checked where a value enters.
const (
	MaxNameLen     = 63      // bytes of a user or function name: one DNS label
	MaxKeyLen      = 1 << 10 // bytes of a state key
	MaxPathLen     = 768     // bytes of a file path; an object store allows 1,024 for the whole object name
	MaxPathSegment = 240     // bytes of one segment of it; file systems allow 255

	// MaxPayload bounds a call's input and its output, and one unary read or write of state, in bytes: a gRPC message
	// of 4 MiB less its envelope. Larger data goes through state or files.
	MaxPayload = 4<<20 - 64<<10
	// MaxModule bounds an uploaded module in bytes.
	MaxModule = 256 << 20
	// MaxLog bounds what is kept of a call's stdout and stderr in bytes; the rest is cut and marked.
	MaxLog = 1 << 20

	MaxTimeout    = 24 * time.Hour      // of a call, or of one attempt of it
	MaxAttempts   = 10                  // of an asynchronous call
	MaxResultAge  = 30 * 24 * time.Hour // for which its result is kept
	MaxWebhookLen = 2 << 10             // bytes of a webhook's URL
	MaxArgs       = 256                 // of a call
	MaxArgBytes   = 64 << 10            // of all of them together
	MaxEnv        = 256                 // environment variables of a function, secrets included
	MaxEnvBytes   = 64 << 10            // of their names and values together
	MaxMounts     = 32                  // of a function

	MaxDepth    = 64     // calls above a call, each of which was made by the one above it
	MaxChildren = 1_000  // calls that one call makes
	MaxTree     = 10_000 // calls that descend from a call from outside, itself included
)

// ErrInvalid is wrapped by every error of a Parse function in this package.
var ErrInvalid = errors.New("invalid")

// User owns functions, state and files. Nothing crosses users.
type User string

// ParseUser checks that s is a name: [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?
func ParseUser(s string) (User, error) {
	if err := checkName("user", s); err != nil {
		return "", err
	}
	return User(s), nil
}

// Function is a name under a user. It points at its current Version.
type Function struct {
	User User
	Name string
}

// ParseFunction reads "user/function"; both are names as ParseUser has them.
func ParseFunction(s string) (Function, error) {
	user, name, ok := strings.Cut(s, "/")
	if !ok {
		return Function{}, fmt.Errorf("%w function %q: want USER/FUNCTION, such as ann/echo", ErrInvalid, clip(s))
	}
	return NewFunction(user, name)
}

// NewFunction checks both names.
func NewFunction(user, name string) (Function, error) {
	if err := checkName("user", user); err != nil {
		return Function{}, err
	}
	if err := checkName("function", name); err != nil {
		return Function{}, err
	}
	return Function{User(user), name}, nil
}

func (f Function) String() string { return string(f.User) + "/" + f.Name }

func checkName(kind, s string) error {
	ok := len(s) > 0 && len(s) <= MaxNameLen && s[0] != '-' && s[len(s)-1] != '-'
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return fmt.Errorf("%w %s name %q: use 1 to %d of a-z, 0-9 and '-', not '-' first or last", ErrInvalid, kind, clip(s), MaxNameLen)
	}
	return nil
}

// clip keeps a hostile name from filling an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// Digest names a module by the SHA-256 of its bytes.
type Digest [sha256.Size]byte

// DigestOf hashes b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads what String writes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if n, err := hex.Decode(d[:], []byte(s)); err != nil || n != len(d) || len(s) != 2*len(d) {
		return Digest{}, fmt.Errorf("%w digest %q: want 64 hexadecimal digits", ErrInvalid, clip(s))
	}
	return d, nil
}

// String is 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero tells a digest that is missing.
func (d Digest) IsZero() bool { return d == Digest{} }

// Version is an immutable upload of a function, and how the function's guests were to be started when it was looked up.
type Version struct {
	Function Function
	Number   int64 // 1, 2, … in the order of uploads
	Digest   Digest
	Config   Digest // of the run configuration; zero for none
}

// CallID is a call's public name: 128 random bits, so that it can't be guessed.
type CallID [16]byte

// NewCallID draws a random id.
func NewCallID() CallID {
	var id CallID
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process rather than return an error
	return id
}

// ParseCallID reads what String writes.
func ParseCallID(s string) (CallID, error) {
	var id CallID
	if len(s) != 2*len(id) {
		return CallID{}, fmt.Errorf("%w call id %q: want 32 hexadecimal digits", ErrInvalid, clip(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return CallID{}, fmt.Errorf("%w call id %q: want 32 hexadecimal digits", ErrInvalid, clip(s))
	}
	return id, nil
}

// String is 32 lower-case hexadecimal digits.
func (id CallID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells a call without a parent from one with.
func (id CallID) IsZero() bool { return id == CallID{} }

// Call is one execution of a function.
type Call struct {
	ID       CallID
	Function Function
	Version  Version // what Function pointed at when the call was accepted
	Parent   CallID  // zero for a call from outside
	Root     CallID  // the call from outside that it descends from; its own ID for such a call
	Depth    int32   // how many calls are above it, at most MaxDepth
	Entry    *uint32 // the entry of the module's function table that is called in place of the usual one; nil for that
	Input    []byte
	Args     []string // after argv[0], which is the function's name
	Deadline time.Time
	Attempt  int32             // 1, 2, …; a result of an earlier attempt is refused
	Trace    map[string]string // W3C trace context of the caller
}

// CallState is where a call is in its life. A terminal state never changes.
type CallState uint8

// Queued → Running → one of the terminal states. A call whose function can't start goes from Queued to Failed.
const (
	Queued CallState = iota + 1
	Running
	Succeeded
	Failed    // the guest trapped, exited with a code ≠ 0, or its executor was lost
	Cancelled // somebody asked for it
	TimedOut  // its deadline passed
)

// Terminal reports whether the call has ended.
func (s CallState) Terminal() bool { return s >= Succeeded && s <= TimedOut }

func (s CallState) String() string {
	switch s {
	case Queued:
		return "QUEUED"
	case Running:
		return "RUNNING"
	case Succeeded:
		return "SUCCEEDED"
	case Failed:
		return "FAILED"
	case Cancelled:
		return "CANCELLED"
	case TimedOut:
		return "TIMED_OUT"
	}
	return "UNKNOWN"
}

// Result is how a call ended.
type Result struct {
	State    CallState // terminal
	Output   []byte
	ExitCode int32  // as the guest gave it, 0–255; 0 with a Reason when the guest never exited
	Reason   string // "" on success; else GUEST_EXIT, GUEST_TRAP, DEADLINE, EXECUTOR_LOST, …
	Message  string // one sentence for a person
	Log      []byte // stdout and stderr as they came, at most MaxLog
	Cold     bool   // the instance was made for this call from a module that was not loaded
	Executor string
	Started  time.Time // on the executor
	Ended    time.Time
	Memory   int64         // peak of the guest's linear memory in bytes
	CPU      time.Duration // that the guest used
	Traffic
}

// Traffic is what a call moved, in bytes.
type Traffic struct {
	StateRead    int64 // of shared values, from the state service
	StateWritten int64
	FileRead     int64 // of shared files
	FileWritten  int64
}

// StateKey names a shared value.
type StateKey struct {
	User User
	Key  string // any bytes but NUL, 1 to MaxKeyLen
}

// NewStateKey checks both parts.
func NewStateKey(user, key string) (StateKey, error) {
	u, err := ParseUser(user)
	if err != nil {
		return StateKey{}, err
	}
	switch {
	case key == "":
		return StateKey{}, fmt.Errorf("%w state key: it is empty", ErrInvalid)
	case len(key) > MaxKeyLen:
		return StateKey{}, fmt.Errorf("%w state key of %d bytes: at most %d are allowed", ErrInvalid, len(key), MaxKeyLen)
	case strings.IndexByte(key, 0) >= 0:
		return StateKey{}, fmt.Errorf("%w state key %q: it holds a NUL byte", ErrInvalid, clip(key))
	}
	return StateKey{u, key}, nil
}

func (k StateKey) String() string { return fmt.Sprintf("%s/%q", k.User, k.Key) }

// FilePath names a shared file. Path is clean, relative and never leaves the user's tree.
type FilePath struct {
	User User
	Path string
}

// NewFilePath cleans p ("a//b/./c/../d" is "a/b/d") and refuses one that would leave the tree, is empty, too long, not
// UTF-8 or holds control characters.
func NewFilePath(user, p string) (FilePath, error) {
	u, err := ParseUser(user)
	if err != nil {
		return FilePath{}, err
	}
	clean, err := CleanPath(p)
	if err != nil {
		return FilePath{}, err
	}
	if clean == "." {
		return FilePath{}, fmt.Errorf("%w path %q: it names no file", ErrInvalid, clip(p))
	}
	return FilePath{u, clean}, nil
}

// CleanPath is NewFilePath's rule for a path alone; the tree itself is ".".
func CleanPath(p string) (string, error) {
	if len(p) > MaxPathLen {
		return "", fmt.Errorf("%w path of %d bytes: at most %d are allowed", ErrInvalid, len(p), MaxPathLen)
	}
	if !utf8.ValidString(p) {
		return "", fmt.Errorf("%w path %q: it is not UTF-8", ErrInvalid, clip(p))
	}
	for i := 0; i < len(p); i++ {
		if p[i] < 0x20 || p[i] == 0x7f {
			return "", fmt.Errorf("%w path %q: it holds a control character", ErrInvalid, clip(p))
		}
	}
	depth := 0
	for seg := range strings.SplitSeq(p, "/") {
		switch {
		case seg == "" || seg == ".":
		case seg == "..":
			if depth--; depth < 0 {
				return "", fmt.Errorf("%w path %q: it leaves the tree", ErrInvalid, clip(p))
			}
		case len(seg) > MaxPathSegment:
			return "", fmt.Errorf("%w path %q: a segment has %d bytes, at most %d are allowed", ErrInvalid, clip(p), len(seg), MaxPathSegment)
		default:
			depth++
		}
	}
	return path.Clean(strings.TrimLeft(p, "/")), nil
}

func (p FilePath) String() string { return string(p.User) + "/" + p.Path }

// CheckArgs refuses arguments that can't reach a guest whole. How many and how large they may be is MaxArgs and MaxArgBytes.
func CheckArgs(args []string) (size int, err error) {
	for _, a := range args {
		size += len(a)
		if strings.IndexByte(a, 0) >= 0 {
			return 0, fmt.Errorf("%w argument: it holds a NUL byte", ErrInvalid)
		}
		if !utf8.ValidString(a) {
			return 0, fmt.Errorf("%w argument: it is not UTF-8", ErrInvalid)
		}
	}
	return size, nil
}

// CheckWebhook refuses what can't be the URL of a webhook; "" stands for none. Where it leads is looked at when it is called.
func CheckWebhook(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > MaxWebhookLen {
		return fmt.Errorf("%w webhook URL of %d bytes: at most %d are allowed", ErrInvalid, len(s), MaxWebhookLen)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%w webhook URL %q: want http://HOST/… or https://HOST/…", ErrInvalid, clip(s))
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("%w webhook URL: it holds a user's name, a password or a fragment", ErrInvalid)
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= 0x20 || s[i] == 0x7f {
			return fmt.Errorf("%w webhook URL %q: it holds a space or a control character", ErrInvalid, clip(s))
		}
	}
	return nil
}
