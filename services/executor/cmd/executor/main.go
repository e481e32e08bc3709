// Command executor runs calls on this machine.
package main

import (
	"skein.dev/platform/compile"
	"skein.dev/platform/service"
	"skein.dev/services/executor"
)

func main() {
	compile.Child()
	var cfg executor.Config
	service.Main("executor", &cfg, cfg.Start)
}
