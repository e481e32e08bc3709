// Command named calls another function, echo, with bytes of every value, and takes its output.
package main

import (
	"bytes"
	"fmt"

	skein "skein.dev/sdk/go"
)

//lint:ignore U1000 the host calls it
//go:wasmexport handle
func handle() int32 { return skein.Exit(run()) }

func run() error {
	var in []byte
	for i := range 256 {
		in = append(in, byte(i))
	}
	child, err := skein.Chain("echo", in)
	if err != nil {
		return err
	}
	exit, err := child.Await()
	if err != nil {
		return err
	}
	out, err := child.Output()
	if err != nil {
		return err
	}
	same := "others"
	if bytes.Equal(in, out) {
		same = "the same"
	}
	return skein.Output(fmt.Appendf(nil, "echo exited with %d; %d bytes came back, %s\n", exit, len(out), same))
}

func main() {}
