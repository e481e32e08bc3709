// Command protodeps writes the third-party .proto files that ours import, so that none is committed and none is fetched:
// they are printed from the descriptors linked into the Go packages that tools/go.mod pins.
//
//	protodeps DIR
package main

import (
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2/options"
	_ "google.golang.org/genproto/googleapis/api/annotations" // http, field_behavior, client, resource
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: protodeps DIR")
	}
	if err := dump(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

// dump prints every linked file below dir, at the path by which it is imported. The well-known types stay out: every
// compiler carries its own.
func dump(dir string) error {
	var files []protoreflect.FileDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(fd.Path(), "google/protobuf/") {
			files = append(files, fd)
		}
		return true
	})
	printer := protoprint.Printer{}
	if err := printer.PrintProtosToFileSystem(files, dir); err != nil {
		return fmt.Errorf("print protos: %w", err)
	}
	return nil
}
