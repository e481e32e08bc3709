package test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"skein.dev/test/cluster"
)

// Programs for WASI that others wrote and built run unchanged as functions, called by REST: `make test-programs` fetches them.
func TestPrograms(t *testing.T) {
	dir := os.Getenv("SKEIN_PROGRAMS")
	if dir == "" {
		t.Skip("SKEIN_PROGRAMS is not set; `make test-programs` fetches the programs and runs this test")
	}
	c := cluster.Dev(t)
	skein := func(t *testing.T, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), cluster.Bin(t, "skein"), args...)
		cmd.Env = append(os.Environ(), c.Env()...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("skein %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	langs := filepath.Join(dir, "node_modules", "@runno", "sandbox", "dist", "langs")
	call := func(t *testing.T, function string, input string, args ...string) string {
		t.Helper()
		return string(want(t, 200, c, http.MethodPost, "/v1/invoke/"+function+"?timeout=5m&"+url.Values{"args": args}.Encode(), []byte(input)).body)
	}
	put := func(t *testing.T, path, content string) {
		t.Helper()
		want(t, 200, c, http.MethodPut, "/v1/files/"+path, []byte(content))
	}

	t.Run("yosys", func(t *testing.T) {
		skein(t, "upload", "ann/yosys", filepath.Join(dir, "node_modules", "@yowasp", "yosys", "gen", "yosys.core.wasm"))
		skein(t, "files", "cp", "-r", filepath.Join(dir, "share"), "ann:yosys/share")
		skein(t, "functions", "configure", "ann/yosys", "--mount", "yosys/share:/share", "--mount", "designs:/designs", "--arg", "-q", "--stdin", "empty")
		put(t, "ann/designs/counter.v", `module counter (input clk, input rst, output reg [3:0] q);
			always @(posedge clk) if (rst) q <= 0; else q <= q + 1;
		endmodule`)
		out := call(t, "ann/yosys", "", "-p", "read_verilog /designs/counter.v; synth; write_json")
		var design struct {
			Modules map[string]struct {
				Cells map[string]struct{ Type string }
			}
		}
		if err := json.Unmarshal([]byte(out), &design); err != nil {
			t.Fatalf("%v in %.500s", err, out)
		}
		flipFlops := 0
		for _, cell := range design.Modules["counter"].Cells {
			if strings.HasPrefix(cell.Type, "$_SDFF_") {
				flipFlops++
			}
		}
		if flipFlops != 4 {
			t.Errorf("a counter of 4 bits has %d flip-flops:\n%.2000s", flipFlops, out)
		}
	})

	t.Run("ruby", func(t *testing.T) {
		skein(t, "upload", "ann/ruby", filepath.Join(langs, "ruby-3.2.0.wasm"))
		put(t, "ann/scripts/words.rb", rubyScript)
		skein(t, "functions", "configure", "ann/ruby", "--mount", "scripts:/scripts", "--arg", "/scripts/words.rb")
		if got := call(t, "ann/ruby", "one two two three three three", "2"); got != `{"three":3,"two":2}`+"\n" {
			t.Errorf("got %q", got)
		}
	})

	t.Run("python", func(t *testing.T) {
		skein(t, "upload", "ann/python", filepath.Join(langs, "python-3.11.3.wasm"))
		skein(t, "files", "cp", "-r", filepath.Join(dir, "python", "usr"), "ann:python/usr")
		put(t, "ann/scripts/words.py", pythonScript)
		skein(t, "functions", "configure", "ann/python", "--mount", "python/usr:/usr", "--mount", "scripts:/scripts", "--arg", "/scripts/words.py")
		if got := call(t, "ann/python", "one two two three three three", "2"); got != `{"three": 3, "two": 2}`+"\n" {
			t.Errorf("got %q", got)
		}
	})
}

const rubyScript = `require "json"
require "set"
words = STDIN.read.split
Dir.mkdir("/tmp") unless Dir.exist?("/tmp")
File.write("/tmp/words", words.tally.sort_by { |w, n| [-n, w] }.first(ARGV[0].to_i).to_h.to_json)
begin
  File.read("/absent")
rescue Errno::ENOENT
  puts File.read("/tmp/words")
end
`

const pythonScript = `import collections, hashlib, json, pathlib, sys
words = collections.Counter(sys.stdin.read().split())
out = pathlib.Path("/tmp/words")
out.parent.mkdir(exist_ok=True)
out.write_text(json.dumps(dict(words.most_common(int(sys.argv[1])))))
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
try:
    open("/absent")
except FileNotFoundError:
    print(out.read_text())
`
