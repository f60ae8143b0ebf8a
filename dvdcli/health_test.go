package main

import (
	"context"

	"github.com/holdfast-io/holdfast/isolator/client"
)

func healthy(socket string) bool {
	h, err := client.New(socket).Health(context.Background())
	return err == nil && h.Ready
}
