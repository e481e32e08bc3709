// Command wordcount counts the words of a shared file, or of its input. All counts go into the state value "wordcount",
// where other functions find them; the ten most frequent words are the output. A word is a run of the letters A to Z.
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"

	skein "skein.dev/sdk/go"
)

// shown is how many words the output has.
const shown = 10

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	text := skein.Input()
	if len(args) > 0 {
		var err error
		if text, err = os.ReadFile("/" + args[0]); err != nil {
			return err
		}
	}
	lines := count(text)
	if err := skein.SetState("wordcount", bytes.Join(lines, nil)); err != nil {
		return err
	}
	if err := skein.PushState("wordcount"); err != nil {
		return err
	}
	return skein.Output(bytes.Join(lines[:min(shown, len(lines))], nil))
}

// count gives a line "count word" for each word, the most frequent first, ties in the order of the alphabet.
func count(text []byte) [][]byte {
	counts := map[string]int{}
	separator := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
	for word := range bytes.FieldsFuncSeq(text, separator) {
		counts[string(bytes.ToLower(word))]++
	}
	words := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	lines := make([][]byte, len(words))
	for i, w := range words {
		lines[i] = fmt.Appendf(nil, "%d %s\n", counts[w], w)
	}
	return lines
}
