module skein.dev/examples

go 1.26

require skein.dev/sdk/go v0.0.0

replace skein.dev/sdk/go => ../sdk/go
