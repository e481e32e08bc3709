package compile

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/klauspost/compress/zstd"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// Artifact is a module ready to be run by engines of one fingerprint.
type Artifact struct {
	Digest      skein.Digest // of the module as it was uploaded
	Fingerprint string
	Prepared    *prepare.Prepared
	File        string // what the engine calls the file of its code
	Code        []byte // that file
}

// An artifact's bytes are
//
//	magic                  8 bytes, with the version of this format
//	tag                   32 bytes: HMAC-SHA256 of magic and all that follows the tag
//	digest                32 bytes
//	len(fingerprint)       1 byte
//	fingerprint
//	len(raw)               8 bytes
//	zstd(raw)
//
// and raw is
//
//	len(header)            4 bytes
//	header                 JSON: type header
//	offset, length         4 and 4 bytes for each segment of the image
//	table, offset, length  4, 4 and 4 bytes for each segment of elements
//	elements               4 bytes for each function
//	segments, wasm, code
//
// Numbers are little-endian. Up to len(raw) the form can be read without a decompressor, and nothing is read before the
// tag is right: native code is run as it comes.
const (
	magic    = "skeinA1\n"
	fixed    = len(magic) + sha256.Size
	identity = fixed + sha256.Size + 1
	maxRaw   = 3 << 29 // bytes: code, wasm and image
	// MaxArtifact bounds an encoded artifact in bytes.
	MaxArtifact = maxRaw + 1<<20
)

// header is the part of an artifact that isn't large.
type header struct {
	Prepared prepare.Prepared // without Wasm, Image and Elements
	Segments int              // of the image
	Elements int              // segments
	Wasm     int              // bytes
	File     string
}

// fileForm is how the engine names its files: by a hash.
var fileForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Encode writes a so that Decode with the same key knows it again. The key is a secret that all have who may make
// artifacts; with an empty one, whoever can write to the store can have any code run. Error: TooLarge ARTIFACT_TOO_LARGE.
func (a *Artifact) Encode(key []byte) ([]byte, error) {
	p := a.Prepared
	h := header{*p, len(p.Image), len(p.Elements), len(p.Wasm), a.File}
	h.Prepared.Image, h.Prepared.Elements, h.Prepared.Wasm = nil, nil, nil
	meta, err := json.Marshal(h)
	if err != nil {
		return nil, fault.Internal.New("ARTIFACT", "artifact %.12s: %v", a.Digest, err)
	}
	small := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(meta)+8*len(p.Image)), uint32(len(meta)))
	small = append(small, meta...)
	size := int64(len(p.Wasm) + len(a.Code))
	for _, s := range p.Image {
		small = binary.LittleEndian.AppendUint32(small, s.Offset)
		small = binary.LittleEndian.AppendUint32(small, uint32(len(s.Data)))
		size += int64(len(s.Data))
	}
	small = appendElements(small, p.Elements)
	if size += int64(len(small)); size > maxRaw {
		return nil, fault.TooLarge.New("ARTIFACT_TOO_LARGE", "the module has %d MiB of code and data once it is compiled, at most %d are allowed", size>>20, maxRaw>>20)
	}
	var out bytes.Buffer
	out.WriteString(magic)
	out.Write(make([]byte, sha256.Size))
	out.Write(a.Digest[:])
	out.WriteByte(byte(len(a.Fingerprint)))
	out.WriteString(a.Fingerprint)
	out.Write(binary.LittleEndian.AppendUint64(nil, uint64(size)))
	if err := a.compress(&out, small, size); err != nil {
		return nil, fault.Internal.New("ARTIFACT", "artifact %.12s: %v", a.Digest, err)
	}
	b := out.Bytes()
	copy(b[len(magic):], tagOf(key, b))
	return b, nil
}

func appendElements(b []byte, segments []prepare.ElementSegment) []byte {
	for _, s := range segments {
		b = binary.LittleEndian.AppendUint32(b, s.Table)
		b = binary.LittleEndian.AppendUint32(b, s.Offset)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Funcs)))
	}
	for _, s := range segments {
		for _, f := range s.Funcs {
			b = binary.LittleEndian.AppendUint32(b, f)
		}
	}
	return b
}

func (a *Artifact) compress(out *bytes.Buffer, small []byte, size int64) error {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	z.ResetContentSize(out, size)
	_, err = z.Write(small)
	for _, s := range a.Prepared.Image {
		_, e := z.Write(s.Data)
		err = errors.Join(err, e)
	}
	_, errW := z.Write(a.Prepared.Wasm)
	_, errC := z.Write(a.Code)
	return errors.Join(err, errW, errC, z.Close())
}

func tagOf(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b[:len(magic)])
	h.Write(b[fixed:])
	return h.Sum(nil)
}

// Decode reads what Encode wrote, if it is the artifact of this digest and fingerprint. Wasm and Code of what it gives
// share memory with one another. Error: DataLoss ARTIFACT_DAMAGED, also for a whole artifact of something else.
func Decode(b, key []byte, digest skein.Digest, fingerprint string) (*Artifact, error) {
	bad := func(format string, args ...any) error {
		return fault.DataLoss.New("ARTIFACT_DAMAGED", "the compiled module %.12s: %s", digest, fmt.Sprintf(format, args...)).
			WithHint("it is compiled again; if that goes on, see that all services have the same --artifact-key")
	}
	switch {
	case len(b) < identity+8:
		return nil, bad("it ends after %d bytes", len(b))
	case string(b[:len(magic)]) != magic:
		return nil, bad("its form is another")
	case !hmac.Equal(b[len(magic):fixed], tagOf(key, b)):
		return nil, bad("it was changed, or made with another key")
	}
	name, rest := int(b[identity-1]), b[identity:]
	if len(rest) < name+8 {
		return nil, bad("it ends early")
	}
	if is := skein.Digest(b[fixed : identity-1]); is != digest || string(rest[:name]) != fingerprint {
		return nil, bad("it is that of %.12s for %.200q", is, rest[:name])
	}
	size := binary.LittleEndian.Uint64(rest[name:])
	if size > maxRaw {
		return nil, bad("it wants to be %d bytes large", size)
	}
	raw, err := decompress(rest[name+8:], int(size))
	if err != nil {
		return nil, bad("%v", err)
	}
	a, err := parse(raw)
	if err != nil {
		return nil, bad("%v", err)
	}
	if a.Prepared.Module.Digest != digest {
		return nil, bad("it holds another module")
	}
	a.Digest, a.Fingerprint = digest, fingerprint
	return a, nil
}

func decompress(b []byte, size int) ([]byte, error) {
	const window = 8 << 20 // the encoder's at most; what is beyond size comes to light below
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(size, window))))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	raw, err := z.DecodeAll(b, make([]byte, 0, size))
	if err != nil {
		return nil, err
	}
	if len(raw) != size {
		return nil, fmt.Errorf("it has %d bytes, %d were expected", len(raw), size)
	}
	return raw, nil
}

func parse(raw []byte) (*Artifact, error) {
	short := errors.New("a part of it is missing")
	if len(raw) < 4 || int64(len(raw)-4) < int64(binary.LittleEndian.Uint32(raw)) {
		return nil, short
	}
	meta, rest := raw[4:4+binary.LittleEndian.Uint32(raw)], raw[4+binary.LittleEndian.Uint32(raw):]
	var h header
	if err := json.Unmarshal(meta, &h); err != nil {
		return nil, err
	}
	if h.Segments < 0 || h.Segments > len(rest)/8 || h.Wasm < 0 || !fileForm.MatchString(h.File) {
		return nil, short
	}
	table, rest := rest[:8*h.Segments], rest[8*h.Segments:]
	p := &h.Prepared
	var ok bool
	if p.Elements, rest, ok = parseElements(rest, h.Elements); !ok {
		return nil, short
	}
	size := int64(0)
	for i := range h.Segments {
		size += int64(binary.LittleEndian.Uint32(table[8*i+4:]))
	}
	if size > int64(len(rest)) || int64(h.Wasm) > int64(len(rest))-size {
		return nil, short
	}
	data := bytes.Clone(rest[:size]) // the image is kept when wasm and code are no longer needed
	if h.Segments > 0 {
		p.Image = make([]prepare.Segment, h.Segments)
	}
	for i := range p.Image {
		n := binary.LittleEndian.Uint32(table[8*i+4:])
		p.Image[i], data = prepare.Segment{Offset: binary.LittleEndian.Uint32(table[8*i:]), Data: data[:n:n]}, data[n:]
	}
	rest = rest[size:]
	p.Wasm = rest[:h.Wasm:h.Wasm]
	return &Artifact{Prepared: p, File: h.File, Code: rest[h.Wasm:]}, nil
}

// parseElements reads n segments of elements from the front of b.
func parseElements(b []byte, n int) (list []prepare.ElementSegment, rest []byte, ok bool) {
	if n < 0 || n > len(b)/12 {
		return nil, nil, false
	}
	table, rest := b[:12*n], b[12*n:]
	for ; len(table) > 0; table = table[12:] {
		s := prepare.ElementSegment{Table: binary.LittleEndian.Uint32(table), Offset: binary.LittleEndian.Uint32(table[4:])}
		size := int64(binary.LittleEndian.Uint32(table[8:]))
		if size > int64(len(rest)/4) {
			return nil, nil, false
		}
		s.Funcs = make([]uint32, size)
		for i := range s.Funcs {
			s.Funcs[i] = binary.LittleEndian.Uint32(rest[4*i:])
		}
		list, rest = append(list, s), rest[4*size:]
	}
	return list, rest, true
}
