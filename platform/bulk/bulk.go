// Package bulk carries calls of gRPC services past gRPC where they have many bytes: on TCP connections of their own to the same
// port, in frames whose bytes are written from where they are and read to where they belong (proto/skein/bulk/v1 is the
// contract). Handlers, errors, metadata, deadlines and spans are gRPC's, so that a service has each method once. Server serves
// what a service registers, Conn calls it, and what can't go this way goes by gRPC.
package bulk

import "google.golang.org/grpc"

// Preface is what a connection begins with; a ticket follows.
const Preface = "SKEIN BULK/1\r\n"

const welcome = "OK\r\n"

// Prefer asks Conn to make a call past gRPC. Without it, and where that is not possible, it goes by gRPC.
func Prefer() grpc.CallOption { return prefer{} }

type prefer struct{ grpc.EmptyCallOption }
