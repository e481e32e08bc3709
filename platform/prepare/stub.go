package prepare

// Prepare wraps Inspect until the rewriting pass is merged.
func Prepare(wasm []byte, limits Limits) (*Prepared, error) {
	m, err := Inspect(wasm, limits)
	if err != nil {
		return nil, err
	}
	return &Prepared{Module: *m, Wasm: wasm, MaxPages: 65536}, nil
}
