package main

import "testing"

// The files in the repository are those that the table gives.
func TestUpToDate(t *testing.T) {
	if err := run("../..", true); err != nil {
		t.Error(err)
	}
}
