// Package test checks Skein as a whole: the architecture's rules (arch_test.go), whole calls by scripts through the
// command line and REST (script_test.go), what happens when parts fail (faults_test.go), traces in a real Jaeger
// (jaeger_test.go). Package cluster starts what they need.
package test
