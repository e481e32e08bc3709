module skein.dev/tools/jaeger

go 1.26
