// Command reactor is a guest that starts once and uses all of the package.
package main

import (
	"errors"

	skein "skein.dev/sdk/go"
)

//go:wasmexport handle
func handle() int32 {
	value, err := skein.ReadState("key")
	if errors.Is(err, skein.ENOENT) {
		value, err = skein.Input(), nil
	}
	_, sizeErr := skein.StateSize("key")
	_, appendErr := skein.AppendState("log", value)
	child, chainErr := skein.Chain("name", value)
	_, anyErr := skein.AwaitAny(child)
	_, awaitErr := child.Await()
	_, outputErr := child.Output()
	return skein.Exit(errors.Join(
		chainErr, anyErr, awaitErr, outputErr, child.Err(), child.Cancel(),
		err, sizeErr, appendErr,
		skein.SetState("key", value), skein.SetStateAt("key", value, 1),
		skein.PushState("key"), skein.PullState("key"), skein.DeleteState("key"),
		skein.Output(value), skein.AppendOutput(value),
	))
}

func main() {}
