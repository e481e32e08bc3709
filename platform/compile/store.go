package compile

import (
	"bytes"
	"context"
	"fmt"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// KeyUsage is the help of the flag by which services get the key.
const KeyUsage = "`secret` of 16 bytes or more that signs native code and snapshots in the object store and seals functions' secrets there, the same for upload and all executors; without one, whoever can write there can run code on executors, and functions can have no secrets"

// CheckKey refuses a key that could be guessed; an empty one is none.
func CheckKey(key string) error {
	const least = 16
	if n := len(key); n > 0 && n < least {
		return fault.Invalid.New("BAD_KEY", "--artifact-key has %d bytes, want at least %d", n, least).WithHint("openssl rand -hex 32 makes a good one")
	}
	return nil
}

// Key is where a bucket keeps an artifact.
func Key(digest skein.Digest, fingerprint string) string {
	return "artifacts/" + fingerprint + "/" + digest.String()
}

// Put keeps a in the bucket, in place of what was there. Errors: those of Encode and of the bucket.
func Put(ctx context.Context, bucket blob.Bucket, key []byte, a *Artifact) error {
	b, err := a.Encode(key)
	if err != nil {
		return err
	}
	_, err = bucket.Put(ctx, Key(a.Digest, a.Fingerprint), bytes.NewReader(b), int64(len(b)), blob.PutOptions{})
	return err
}

// Get reads the artifact of a module for this process's engine. Errors: NotFound NO_OBJECT if nobody has compiled it for
// this fingerprint, DataLoss ARTIFACT_DAMAGED, and those of the bucket.
func Get(ctx context.Context, bucket blob.Bucket, key []byte, digest skein.Digest) (*Artifact, error) {
	fingerprint, err := Fingerprint()
	if err != nil {
		return nil, err
	}
	b, info, err := blob.Read(ctx, bucket, Key(digest, fingerprint), MaxArtifact)
	if e := fault.From(err); err != nil && e.Kind == fault.TooLarge {
		return nil, fault.DataLoss.New("ARTIFACT_DAMAGED", "the compiled module %.12s has %d bytes", digest, info.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("compiled module %.12s: %w", digest, err)
	}
	return Decode(b, key, digest, fingerprint)
}
