module skein.dev

go 1.26
