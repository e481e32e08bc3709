package client_test

import (
	"context"
	"fmt"
	"time"

	"skein.dev/client"
)

func Example() {
	ctx := context.Background()
	c, err := client.Dial("127.0.0.1:8080")
	if err != nil {
		panic(err)
	}
	defer func() { _ = c.Close() }()

	res, err := c.Invoke(ctx, "ann/echo", []byte("hello"), client.Options{Timeout: time.Second})
	if err != nil { // the call could not be made
		panic(err)
	}
	fmt.Println(res.State, res.Reason, string(res.Output)) // how it ended

	id, err := c.Submit(ctx, "ann/train", []byte("all night"), client.Options{Timeout: time.Hour}, nil)
	if err != nil {
		panic(err)
	}
	if res, ended, err := c.Wait(ctx, id, time.Minute); err == nil && ended {
		fmt.Println(res.State)
	}
}
