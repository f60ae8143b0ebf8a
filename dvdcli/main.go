// Command dvdcli is what Mesos's docker/volume isolator executes for every volume of a task, a drop-in for the old
// dvdcli: the same commands, flags, output and exit codes.
//
//	dvdcli mount|unmount|create|remove|path|get --volumedriver=D --volumename=N [--volumeopts=k=v …]
//	dvdcli list --volumedriver=D
//	dvdcli version | help
//
// mount and path print the path alone, get and list print names; all else goes to stderr. The exit code is 0 or 1.
//
// It asks the isolator of this node, and waits a while for one that is being restarted. Only where none is installed
// does it speak to the volume plugin itself.
package main

import (
	"os"

	"github.com/holdfast-io/holdfast/isolator/client"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, environment())) }

// environ is what run takes from around it.
type environ struct {
	socket    string
	installed bool     // an isolator belongs on this node
	sockets   []string // plugin directories; nil are Docker's
	specs     []string
}

// MarkerFile says that an isolator is installed here, also while it does not run. Packages put it there.
const MarkerFile = "/var/lib/holdfast/installed"

// pluginVariable names a directory that is searched for plugins instead of Docker's: for tests, and for agents with directories of their own.
const pluginVariable = "HOLDFAST_PLUGIN_DIR"

func environment() environ {
	var e environ
	e.socket, e.installed = client.Socket()
	if !e.installed {
		_, err := os.Stat(MarkerFile)
		e.installed = !os.IsNotExist(err) // when in doubt it is
	}
	if dir := os.Getenv(pluginVariable); dir != "" {
		e.sockets, e.specs = []string{dir}, []string{dir}
	}
	return e
}
