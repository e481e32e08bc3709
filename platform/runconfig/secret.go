package runconfig

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Sealed is a secret's value as it is kept: the form's number (1 byte), which key it was sealed with (8), nonce (12), ciphertext,
// tag (16). AES-256-GCM; function and name are bound to it, so that it can't be put in another's place.
type Sealed []byte

const (
	form     = 1
	keyID    = 8
	overhead = 1 + keyID + 12 + 16
)

func (s Sealed) size() int { return max(0, len(s)-overhead) }

// Key seals and opens secrets. A nil one can't.
type Key struct {
	aead cipher.AEAD
	mark []byte // tells values that were sealed with another from damaged ones
	mac  []byte
}

// NewKey derives the key from the secret that upload and all executors share; nil of none.
func NewKey(shared string) (*Key, error) {
	if shared == "" {
		return nil, nil
	}
	derive := func(what string, n int) []byte {
		b, err := hkdf.Key(sha256.New, []byte(shared), nil, "skein secrets "+what, n)
		if err != nil { // of a length that is too large alone
			panic(err)
		}
		return b
	}
	block, err := aes.NewCipher(derive("aes-256-gcm", 32))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &Key{aead, derive("mark", keyID), derive("request", 32)}, err
}

// Seal encrypts the value of a function's secret. Errors: Precondition SECRETS_KEY for a nil key, Invalid BAD_ENV.
func (k *Key) Seal(f skein.Function, name, value string) (Sealed, error) {
	if err := checkVariable(name, value); err != nil {
		return nil, err
	}
	if k == nil {
		return nil, fault.Precondition.New("SECRETS_KEY", "there is no key to keep secrets with").
			WithHint("start upload and all executors with the same --artifact-key")
	}
	s := append(Sealed{form}, k.mark...)
	return k.aead.Seal(s, nil, []byte(value), bound(f, name)), nil
}

func (k *Key) open(f skein.Function, name string, s Sealed) (string, error) {
	switch {
	case k == nil:
		return "", fault.Precondition.New("SECRETS_KEY", "%s has the secret %.80q, and this executor has no key to open it", f, name).
			WithHint("start upload and all executors with the same --artifact-key")
	case len(s) < overhead || s[0] != form:
		return "", fault.DataLoss.New("SECRET_DAMAGED", "the secret %.80q of %s is damaged", name, f).WithHint("set it again")
	case !hmac.Equal(s[1:1+keyID], k.mark):
		return "", fault.Precondition.New("SECRETS_KEY", "the secret %.80q of %s was set under another --artifact-key than this executor's", name, f).
			WithHint("start upload and all executors with the same --artifact-key; after a change of it set the secrets again")
	}
	value, err := k.aead.Open(nil, nil, s[1+keyID:], bound(f, name))
	if err != nil {
		return "", fault.DataLoss.New("SECRET_DAMAGED", "the secret %.80q of %s is damaged, or is another's", name, f).WithHint("set it again")
	}
	return string(value), nil
}

func bound(f skein.Function, name string) []byte { return []byte(f.String() + "\x00" + name) }

// Sum is a digest of text that may hold secrets: nobody without the key can try out what it might be of.
func (k *Key) Sum(text []byte) (d skein.Digest) {
	var key []byte
	if k != nil {
		key = k.mac
	}
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return skein.Digest(h.Sum(nil))
}
