// Command guest ends as its first argument says.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	fmt.Fprintln(os.Stderr, "guest says:", os.Args[1])
	switch os.Args[1] {
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		fmt.Println("before the exit")
		os.Exit(code)
	case "spin":
		for i := uint32(1); i != 0; i += 2 { // odd for ever
		}
	}
}
