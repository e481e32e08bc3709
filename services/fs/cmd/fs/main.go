// Command fs serves the files that functions share.
package main

import (
	"skein.dev/platform/service"
	"skein.dev/services/fs"
)

func main() {
	cfg := fs.DefaultConfig()
	service.Main("fs", &cfg, cfg.Start)
}
