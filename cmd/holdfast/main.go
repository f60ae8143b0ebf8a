// Command holdfast runs stateful, multi-instance apps on Apache Mesos: every instance has its own volume, and the volume moves
// with the instance. One binary holds the framework, the node helper, the cluster for one machine (`holdfast dev`) and the
// command line for people.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker from `git describe`.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// The second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
