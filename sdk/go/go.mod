module skein.dev/sdk/go

go 1.26
