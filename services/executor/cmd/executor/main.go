// Command executor runs calls on this machine.
package main

import (
	"skein.dev/platform/service"
	"skein.dev/services/executor"
)

func main() {
	var cfg executor.Config
	service.Main("executor", &cfg, cfg.Start)
}
