// Command plain is a command-line program: no SDK, no row of the host interface, only what any Go program has.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) < 2 {
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	switch os.Args[1] {
	case "args":
		for _, a := range os.Args {
			fmt.Println(a)
		}
	case "env":
		for _, name := range os.Args[2:] {
			v, ok := os.LookupEnv(name)
			if !ok {
				v = "(none)"
			}
			fmt.Printf("%s=%s\n", name, v)
		}
	case "write": // stdin to a file
		b, err := io.ReadAll(os.Stdin)
		if err == nil {
			err = os.WriteFile(os.Args[2], b, 0o644)
		}
		must(err)
	case "read":
		b, err := os.ReadFile(os.Args[2])
		must(err)
		_, _ = os.Stdout.Write(b)
	case "list":
		entries, err := os.ReadDir(os.Args[2])
		must(err)
		for _, e := range entries {
			fmt.Println(e.Name())
		}
	case "length": // of a variable that is not to be shown
		fmt.Println(len(os.Getenv(os.Args[2])))
	case "fail":
		fmt.Print("half of it")
		fmt.Fprintln(os.Stderr, "it went wrong")
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	case "zeros": // what it can; it looks at no error
		n, _ := strconv.Atoi(os.Args[2])
		for buf := make([]byte, 1<<16); n > 0; n -= len(buf) {
			_, _ = os.Stdout.Write(buf[:min(n, len(buf))])
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
