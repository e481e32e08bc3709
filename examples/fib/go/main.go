// Command fib computes a Fibonacci number by two calls of itself, each of which does the same.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	skein "skein.dev/sdk/go"
)

//lint:ignore U1000 the host calls it
//go:wasmexport handle
func handle() int32 { return skein.Exit(run()) }

func run() error {
	in := skein.Input()
	if len(in) == 0 {
		in = []byte("10")
	}
	n, err := number(in, nil)
	if err != nil {
		return err
	}
	if n > 1 {
		self := os.Getenv("SKEIN_FUNCTION")
		a, err := skein.Chain(self, []byte(strconv.Itoa(n-1)))
		if err != nil {
			return err
		}
		b, err := skein.Chain(self, []byte(strconv.Itoa(n-2))) // both run while this call waits
		if err != nil {
			return err
		}
		x, err := number(a.Output())
		if err != nil {
			return err
		}
		y, err := number(b.Output())
		if err != nil {
			return err
		}
		n = x + y
	}
	return skein.Output(fmt.Appendln(nil, n))
}

func number(text []byte, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func main() {}
