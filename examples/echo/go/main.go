// Command echo is a reactor: it starts once, is frozen, and each call begins there.
package main

import skein "skein.dev/sdk/go"

//lint:ignore U1000 the host calls it
//go:wasmexport handle
func handle() int32 { return skein.Exit(skein.Output(skein.Input())) }

func main() {}
