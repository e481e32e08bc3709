// State serves the values that calls share, kept in Redis.
package main

import (
	"skein.dev/platform/service"
	"skein.dev/services/state"
)

func main() {
	cfg := state.DefaultConfig()
	service.Main("state", &cfg, cfg.Start)
}
