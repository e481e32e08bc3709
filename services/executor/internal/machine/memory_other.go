//go:build !linux

package machine

func newTier(_ *Machine, size int) tier { return &portable{size: size} }

func defaultMappings() int { return 1 << 20 } // which the portable tier has no use for
