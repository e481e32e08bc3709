// Command command is a guest that echoes its input.
package main

import skein "skein.dev/sdk/go"

func main() {
	if err := skein.Output(skein.Input()); err != nil {
		panic(err)
	}
}
