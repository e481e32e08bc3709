// Upload accepts modules, checks them and keeps them as versions of functions in an object store.
package main

import (
	"skein.dev/platform/compile"
	"skein.dev/platform/service"
	"skein.dev/services/upload"
)

func main() {
	compile.Child()
	cfg := upload.DefaultConfig()
	service.Main("upload", &cfg, cfg.Start)
}
