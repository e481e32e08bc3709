// A reactor in Go with the libraries that functions use, and some state that its initialisation builds.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

var (
	table = map[string]int{}
	word  = regexp.MustCompile(`[a-z]+(\d+)`)
	calls int
)

func init() {
	for i := range 5000 {
		table[fmt.Sprintf("key%d", i)] = i
	}
	if err := work(); err != nil { // what is done once is done before the snapshot
		panic(err)
	}
}

type record struct {
	Name string   `json:"name"`
	N    int      `json:"n"`
	Tags []string `json:"tags"`
}

func work() error {
	text, err := json.Marshal(record{"ann", table["key4711"], word.FindStringSubmatch("see key42 now")})
	if err != nil {
		return err
	}
	var back record
	if err := json.Unmarshal(text, &back); err != nil {
		return err
	}
	if back.N != 4711 || back.Tags[1] != "42" || !strings.Contains(string(text), `"name":"ann"`) {
		return fmt.Errorf("got %s", text)
	}
	return nil
}

//go:wasmexport handle
func handle() int32 {
	calls++
	if err := work(); err != nil || calls != 1 {
		fmt.Fprintln(os.Stderr, calls, err)
		return 1
	}
	table["called"] = calls
	return 0
}

func main() {}
