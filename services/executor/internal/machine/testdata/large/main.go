// A reactor as large as programs get that take all in: it parses and type-checks Go, and renders a page of it.
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"html/template"
	"net/http"
	"net/http/httptest"
	"os"

	_ "archive/zip"
	_ "database/sql"
	_ "debug/dwarf"
	_ "encoding/xml"
	_ "image/jpeg"
	_ "image/png"
	_ "net/rpc/jsonrpc"
	_ "net/smtp"
	_ "text/template"
)

var (
	_     = importer.Default
	page  = template.Must(template.New("page").Parse(`<p>{{range .}}{{.}} {{end}}</p>`))
	calls int
)

const source = `package p; type T struct{ a, b int }; func (t T) Sum() int { return t.a + t.b }; var X = T{1, 2}.Sum()`

func work() error {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", source, 0)
	if err != nil {
		return err
	}
	pkg, err := new(types.Config).Check("p", set, []*ast.File{file}, nil)
	if err != nil {
		return err
	}
	w := httptest.NewRecorder()
	http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = page.Execute(w, pkg.Scope().Names())
	}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if !bytes.Contains(w.Body.Bytes(), []byte("T X")) {
		return fmt.Errorf("got %s", w.Body)
	}
	return nil
}

func init() {
	if err := work(); err != nil {
		panic(err)
	}
}

//go:wasmexport handle
func handle() int32 {
	calls++
	if err := work(); err != nil || calls != 1 {
		fmt.Fprintln(os.Stderr, calls, err)
		return 1
	}
	return 0
}

func main() {}
