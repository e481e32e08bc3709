package host

import (
	"context"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"skein.dev/abi"
)

// linkWASI adds preview 1, wazero's own for now, and checks that it is what the abi's rows say.
func linkWASI(ctx context.Context, rt wazero.Runtime) error {
	compiled, err := wasi_snapshot_preview1.NewBuilder(rt).Compile(ctx)
	if err != nil {
		return fmt.Errorf("host module %s: %w", abi.WASI, err)
	}
	funcs := compiled.ExportedFunctions()
	for _, r := range abi.Rows() {
		if r.Module != abi.WASI {
			continue
		}
		f := funcs[r.Name]
		if f == nil {
			return fmt.Errorf("host: %s has no function", key(r))
		}
		if !slices.Equal(f.ParamTypes(), r.Signature.Params) || !slices.Equal(f.ResultTypes(), r.Signature.Results) {
			return fmt.Errorf("host: %s is not %s in the engine", key(r), r.Signature)
		}
	}
	if _, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig()); err != nil {
		return fmt.Errorf("host module %s: %w", abi.WASI, err)
	}
	return nil
}
