// Command planner decides where calls run.
package main

import (
	"skein.dev/platform/service"
	"skein.dev/services/planner"
)

func main() {
	var cfg planner.Config
	service.Main("planner", &cfg, cfg.Start)
}
