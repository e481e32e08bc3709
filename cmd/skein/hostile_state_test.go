package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"

	statev1 "skein.dev/proto/skein/state/v1"
)

// liarState is what a liar says of state: of the value "k", if nothing else.
type liarState struct {
	key      string
	list     func(n int) *statev1.ListValuesResponse
	read     func(send func(i *statev1.ValueInfo, data string) error) error
	elements func(count int64, send func(elements ...string) error) error
	lists    int
}

func (l *liar) ListValues(context.Context, *statev1.ListValuesRequest) (*statev1.ListValuesResponse, error) {
	l.state.lists++
	if l.state.list != nil {
		return l.state.list(l.state.lists), nil
	}
	return &statev1.ListValuesResponse{Values: []*statev1.ValueInfo{{User: "ann", Key: []byte(l.state.key), Size: 3}}}, nil
}

func (l *liar) ReadValue(_ *statev1.ReadValueRequest, out grpc.ServerStreamingServer[statev1.ReadValueResponse]) error {
	send := func(i *statev1.ValueInfo, data string) error {
		return out.Send(&statev1.ReadValueResponse{Info: i, Data: []byte(data)})
	}
	if l.state.read != nil {
		return l.state.read(send)
	}
	return send(valueOf(3), "abc")
}

func (l *liar) ReadElements(r *statev1.ReadElementsRequest, out grpc.ServerStreamingServer[statev1.ReadElementsResponse]) error {
	if l.state.elements == nil {
		return nil
	}
	return l.state.elements(r.GetCount(), func(elements ...string) error {
		resp := &statev1.ReadElementsResponse{}
		for _, e := range elements {
			resp.Elements = append(resp.Elements, []byte(e))
		}
		return out.Send(resp)
	})
}

func valueOf(size int64) *statev1.ValueInfo {
	return &statev1.ValueInfo{User: "bob", Key: []byte("../other"), Size: size}
}

// exportCase is a lie about state, and what is said of it.
type exportCase struct {
	liarState
	says []string
}

func (c exportCase) check(t *testing.T) {
	server := serveLiar(t, &liar{state: c.liarState})
	r := bounded(t, server, "", "state", "export", "ann")
	want(t, r, exitFailure, r.stdout, c.says...)
	if r := bounded(t, server, r.stdout, "state", "import", "ann"); r.code == 0 {
		t.Errorf("what came of it was imported: %+v", r)
	}
	if c.read != nil {
		r := bounded(t, server, "", "state", "get", "ann/k")
		want(t, r, exitFailure, r.stdout, "error: ")
	}
}

// An export that is not whole fails, says of which value, and does not look whole to an import.
func TestHostileExport(t *testing.T) {
	type value = func(i *statev1.ValueInfo, data string) error
	type elements = func(elements ...string) error
	for name, c := range map[string]exportCase{
		"no key":    {liarState{key: ""}, []string{"[BAD_ANSWER]"}},
		"NUL":       {liarState{key: "a\x00b"}, []string{"[BAD_ANSWER]"}},
		"long key":  {liarState{key: strings.Repeat("k", 1<<20)}, []string{"[BAD_ANSWER]"}},
		"negative":  {liarState{key: "k", read: func(send value) error { return send(valueOf(-5), "") }}, []string{"[BAD_ANSWER]", `ann/"k"`, "-5 bytes"}},
		"no size":   {liarState{key: "k", read: func(send value) error { return send(nil, "abc") }}, []string{"[BAD_ANSWER]", `ann/"k"`}},
		"shorter":   {liarState{key: "k", read: func(send value) error { return send(valueOf(9), "abc") }}, []string{"[CUT_OFF]", `ann/"k"`, "3 of 9"}},
		"nothing":   {liarState{key: "k", read: func(value) error { return nil }}, []string{"[CUT_OFF]", `ann/"k"`}},
		"longer":    {liarState{key: "k", read: func(send value) error { return send(valueOf(2), "abc") }}, []string{"[BAD_ANSWER]", `ann/"k"`, "2 bytes"}},
		"same page": {liarState{key: "k", list: func(int) *statev1.ListValuesResponse { return &statev1.ListValuesResponse{NextPageToken: "t"} }}, []string{"[BAD_ANSWER]"}},
		"endless": {liarState{key: "k", read: func(send value) error {
			for {
				if err := send(valueOf(1<<20), strings.Repeat("x", 64<<10)); err != nil {
					return err
				}
			}
		}}, []string{"[BAD_ANSWER]", `ann/"k"`}},
		"no elements": {liarState{key: "k", elements: func(_ int64, send elements) error {
			for {
				if err := send(); err != nil {
					return err
				}
			}
		}}, []string{"[BAD_ANSWER]", `ann/"k"`}},
		"large element": {liarState{key: "k", elements: func(_ int64, send elements) error { return send(strings.Repeat("e", 2<<20)) }}, []string{"[TOO_LARGE]", `ann/"k"`}},
		"more elements": {liarState{key: "k", elements: func(n int64, send elements) error {
			return send(strings.Split(strings.Repeat("e", int(n)+1), "")...)
		}}, []string{"[VALUE_CHANGED]", `ann/"k"`}},
		"fewer elements": {liarState{key: "k", elements: func(n int64, send elements) error {
			if n > 0 {
				return nil
			}
			return send("a", "b")
		}}, []string{"[VALUE_CHANGED]", `ann/"k"`}},
	} {
		t.Run(name, c.check)
	}
	// An honest one, whose answers are named as they were asked for.
	r := bounded(t, serveLiar(t, &liar{state: liarState{key: "../k"}}), "", "state", "export", "ann")
	want(t, r, 0, r.stdout)
	if f, err := tar.NewReader(strings.NewReader(r.stdout)).Next(); err != nil || f.Name != "..%2Fk" {
		t.Errorf("%+v, %v", f, err)
	}
}

// An import says which file of the archive was none, or could not be stored.
func TestHostileImport(t *testing.T) {
	var whole bytes.Buffer
	out := tar.NewWriter(&whole)
	for _, name := range []string{"k", "bad%zz"} {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 3, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprint(out, "abc")
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	run := at(t, startDev(t))
	want(t, run(whole.String(), "state", "import", "ann"), exitFailure, "", "after 1 values: bad%zz: ", "[BAD_NAME]")
	want(t, run(whole.String()[:1024], "state", "import", "ann"), exitFailure, "", "after 1 values: ", "[BAD_ARCHIVE]", "hint: ")
	want(t, run(whole.String()[:514], "state", "import", "ann"), exitFailure, "", "after 0 values: k: ")
	want(t, run(strings.Repeat("no archive ", 1000), "state", "import", "ann"), exitFailure, "", "after 0 values: ", "header")
	want(t, bounded(t, serveLiar(t, &liar{}), whole.String(), "state", "import", "ann"), exitFailure, "", "after 0 values: k: ")
}
