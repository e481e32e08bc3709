//go:build !race

package compile

func otherProgram() string { return "" }
