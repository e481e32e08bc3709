package compile_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/blob"
	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

const file = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// sample has something of everything, and no real code.
func sample() *compile.Artifact {
	code := make([]byte, 3000)
	rand.NewChaCha8([32]byte{}).Read(code)
	m := prepare.Module{
		Digest: skein.DigestOf([]byte("sample")), Size: 99, Kind: prepare.Reactor, Memory: &prepare.Memory{Min: 2, Max: 3, HasMax: true},
		Imports: []prepare.Import{{Module: "a", Name: "b\x00", Type: abi.Signature{Params: []abi.ValueType{abi.I32, abi.I64}}}},
		Exports: []prepare.Export{{Name: "é", Kind: prepare.ExternGlobal, Index: 1<<32 - 1}},
		Tables:  []prepare.Table{{Min: 1, Type: 0x70}}, Functions: 7, HasStart: true, Flags: prepare.Flags{SIMD: true},
	}
	return &compile.Artifact{
		Digest: m.Digest, Fingerprint: "p2-test", File: file, Code: code,
		Prepared: &prepare.Prepared{
			Module: m, Wasm: wasm(0, nil), MaxPages: 65536, Deep: true, Globals: []prepare.Global{{Name: "skein:global0", Type: byte(abi.F64)}},
			Elements: []prepare.ElementSegment{{Table: 1, Offset: 2, Funcs: []uint32{3, prepare.NoFunc}}, {Offset: 9, Funcs: []uint32{}}, {Funcs: []uint32{7}}},
			Image:    []prepare.Segment{{Offset: 1<<32 - 1, Data: []byte("one")}, {Offset: 0, Data: []byte{}}, {Offset: 5, Data: []byte("three")}},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	for v, i := reflect.ValueOf(*sample().Prepared), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the sample has no %s: would it be kept?", v.Type().Field(i).Name)
		}
	}
	bare := &compile.Artifact{Fingerprint: strings.Repeat("f", 200), File: file, Code: []byte{}, Prepared: &prepare.Prepared{Wasm: []byte{}}}
	large := sample()
	large.Code = bytes.Repeat(large.Code, 7000) // larger than what the decompressor takes for a window
	for name, a := range map[string]*compile.Artifact{"sample": sample(), "bare": bare, "large": large} {
		for _, key := range []string{"", "secret"} {
			b, err := a.Encode([]byte(key))
			if err != nil {
				t.Fatal(err)
			}
			back, err := compile.Decode(b, []byte(key), a.Digest, a.Fingerprint)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(a, back) {
				t.Errorf("%s: %+v, want %+v", name, back, a)
			}
		}
	}
}

// Any change is seen, and so is a whole artifact in another's place.
func TestDamaged(t *testing.T) {
	a, key := sample(), []byte("secret")
	b, err := a.Encode(key)
	if err != nil {
		t.Fatal(err)
	}
	damaged := func(what string, b, key []byte, digest skein.Digest, fingerprint string) {
		t.Helper()
		if got, err := compile.Decode(b, key, digest, fingerprint); err == nil {
			t.Errorf("%s: %+v", what, got)
		} else if e := fault.From(err); e.Kind != fault.DataLoss || e.Reason != "ARTIFACT_DAMAGED" {
			t.Errorf("%s: %+v", what, e)
		}
	}
	for i := range b {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(b)
			changed[i] ^= bit
			damaged("flipped", changed, key, a.Digest, a.Fingerprint)
		}
		damaged("cut", b[:i], key, a.Digest, a.Fingerprint)
	}
	damaged("longer", append(bytes.Clone(b), 0), key, a.Digest, a.Fingerprint)
	damaged("other key", b, []byte("Secret"), a.Digest, a.Fingerprint)
	damaged("no key", b, nil, a.Digest, a.Fingerprint)
	damaged("other module", b, key, skein.DigestOf([]byte("other")), a.Fingerprint)
	damaged("other engine", b, key, a.Digest, "p2-tesT")
	damaged("shorter engine", b, key, a.Digest, "p2-tes")
}

// seal gives bytes the tag of an artifact, as whoever has the key can, or anybody if there is none.
func seal(parts ...[]byte) []byte {
	rest := slices.Concat(parts...)
	h := hmac.New(sha256.New, nil)
	h.Write([]byte("skeinA1\n"))
	h.Write(rest)
	return slices.Concat([]byte("skeinA1\n"), h.Sum(nil), rest)
}

// What has the right tag and is nonsense is refused without much ado, and a bomb for the decompressor stays small.
func TestForged(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	a := sample()
	size := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	raw := func(b []byte) []byte { return slices.Concat(size(uint64(len(b))), z.EncodeAll(b, nil)) }
	head := func(json string, rest ...byte) []byte {
		return raw(slices.Concat(binary.LittleEndian.AppendUint32(nil, uint32(len(json))), []byte(json), rest))
	}
	zeros := z.EncodeAll(make([]byte, 512<<20), nil)
	for name, tail := range map[string][]byte{
		"nothing":           nil,
		"half a size":       {1, 2, 3},
		"no frame":          size(10),
		"not zstd":          append(size(4), "abcd"...),
		"bomb":              append(size(100), zeros...),
		"promised too much": append(size(1<<40), zeros...),
		"empty":             raw(nil),
		"short header":      raw([]byte{255, 255, 255, 255}),
		"no JSON":           head("{"),
		"no file":           head("{}"),
		"file elsewhere":    head(`{"File":"../../../../etc/cron.d/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`),
		"Segments":          head(`{"Segments":1000000000000,"File":"` + file + `"}`),
		"negative":          head(`{"Segments":-1,"File":"` + file + `"}`),
		"negative wasm":     head(`{"Wasm":-1,"File":"` + file + `"}`),
		"Wasm":              head(`{"Wasm":2,"File":"`+file+`"}`, 1),
		"long segment":      head(`{"Segments":1,"File":"`+file+`"}`, 0, 0, 0, 0, 255, 255, 255, 255, 1),
		"Elements":          head(`{"Elements":1000000000000,"File":"` + file + `"}`),
		"negative elements": head(`{"Elements":-1,"File":"` + file + `"}`),
		"long elements":     head(`{"Elements":1,"File":"`+file+`"}`, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1),
		"another module":    head(`{"File":"` + file + `"}`),
	} {
		t.Run(name, func(t *testing.T) {
			b := seal(a.Digest[:], []byte{byte(len(a.Fingerprint))}, []byte(a.Fingerprint), tail)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := compile.Decode(b, nil, a.Digest, a.Fingerprint)
			runtime.ReadMemStats(&after)
			wants(t, err, fault.DataLoss, "ARTIFACT_DAMAGED")
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
		})
	}
	wants(t, decode(seal()), fault.DataLoss, "ARTIFACT_DAMAGED")
	wants(t, decode(seal(make([]byte, 33+8))), fault.DataLoss, "ARTIFACT_DAMAGED")
	wants(t, decode(seal(bytes.Repeat([]byte{255}, 33+8))), fault.DataLoss, "ARTIFACT_DAMAGED")
}

func decode(b []byte) error {
	_, err := compile.Decode(b, nil, skein.Digest{}, "")
	return err
}

func TestStore(t *testing.T) {
	ctx := t.Context()
	bucket, err := blob.Open(ctx, "file:"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, key := sample(), []byte("secret")
	if a.Fingerprint, err = compile.Fingerprint(); err != nil {
		t.Fatal(err)
	}
	_, err = compile.Get(ctx, bucket, key, a.Digest)
	wants(t, err, fault.NotFound, "NO_OBJECT")
	if err := compile.Put(ctx, bucket, key, a); err != nil {
		t.Fatal(err)
	}
	if back, err := compile.Get(ctx, bucket, key, a.Digest); err != nil || !reflect.DeepEqual(a, back) {
		t.Fatalf("%+v %v", back, err)
	}
	// The object of one module in the place of another.
	b, _, err := blob.Read(ctx, bucket, compile.Key(a.Digest, a.Fingerprint), compile.MaxArtifact)
	if err != nil {
		t.Fatal(err)
	}
	other := skein.DigestOf([]byte("other"))
	if _, err := bucket.Put(ctx, compile.Key(other, a.Fingerprint), bytes.NewReader(b), int64(len(b)), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = compile.Get(ctx, bucket, key, other)
	wants(t, err, fault.DataLoss, "ARTIFACT_DAMAGED")
}
