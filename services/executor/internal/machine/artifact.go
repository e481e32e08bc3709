package machine

import (
	"context"
	"errors"

	"skein.dev/platform/compile"
)

// LoadArtifact is Load of what package compile has made. Errors are those of compile.Load and Load.
func (m *Machine) LoadArtifact(ctx context.Context, a *compile.Artifact) (*Module, error) {
	code, err := compile.Load(ctx, m.rt, m.dir, a)
	if err != nil {
		return nil, err
	}
	mod, err := m.Load(ctx, code, a.Prepared)
	if err != nil {
		return nil, errors.Join(err, code.Close(ctx))
	}
	return mod, nil
}
