package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// version is set by the linker from `git describe`.
var version = "dev"

// backend is who does the work: the isolator, or the plugin itself.
type backend interface {
	mount(ctx context.Context, c command) (path string, err error)
	unmount(ctx context.Context, c command) error
	create(ctx context.Context, c command) error
	remove(ctx context.Context, c command) error
	path(ctx context.Context, c command) (string, error)
	get(ctx context.Context, c command) (client.Volume, error)
	list(ctx context.Context, c command) ([]string, error)
	capabilities(ctx context.Context, c command) ([]client.Capability, error)
	status(ctx context.Context, c command) ([]client.VolumeStatus, error)
	operate(ctx context.Context, c command, r client.OperationRequest) (client.Operation, error)
}

func run(args []string, stdout, stderr io.Writer, e environ) int {
	c, err := parse(args)
	var help errHelp
	if errors.As(err, &help) {
		fmt.Fprint(stdout, usage())
		return 0
	}
	if err != nil {
		return failed(stderr, err)
	}
	if c.verb == "version" {
		fmt.Fprint(stdout, versionText())
		return 0
	}
	if err := checkNames(c); err != nil {
		return failed(stderr, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	b, err := choose(ctx, e, c)
	if err == nil {
		err = perform(ctx, b, c, stdout)
	}
	if err != nil {
		return failed(stderr, err)
	}
	return 0
}

// checkNames refuses names that no driver may have. Where they only narrow an answer they may be missing.
func checkNames(c command) error {
	switch {
	case verbs[c.verb].name:
		return volume.Ref{Driver: c.driver, Name: c.name}.Check()
	case c.driver != "":
		return volume.CheckDriver(c.driver)
	}
	return nil
}

func perform(ctx context.Context, b backend, c command, stdout io.Writer) error {
	switch c.verb {
	case "create":
		return b.create(ctx, c)
	case "remove":
		return b.remove(ctx, c)
	case "unmount":
		return b.unmount(ctx, c)
	case "list":
		return printNames(ctx, b, c, stdout)
	case "capabilities":
		return printCapabilities(ctx, b, c, stdout)
	case "status":
		return printStatus(ctx, b, c, stdout)
	}
	if operates[c.verb] {
		return operate(ctx, b, c, stdout)
	}
	var found client.Volume
	one := map[string]func(context.Context, command) (string, error){"mount": b.mount, "path": b.path, "get": nameOf(b, &found)}[c.verb]
	line, err := one(ctx, c)
	if err != nil {
		return err
	}
	// Mesos takes all of stdout for the mount point.
	if strings.ContainsAny(line, "\n\r\x00") {
		return fault.New(fault.Conflict, "%s of volume %s/%s: the answer is not one line: %.100q", c.verb, c.driver, c.name, line)
	}
	if c.verb == "mount" && !strings.HasPrefix(line, "/") {
		return fault.New(fault.Conflict, "mount volume %s/%s: the answer is no absolute path: %.100q", c.driver, c.name, line)
	}
	if c.json && c.verb == "get" {
		return printJSON(stdout, found)
	}
	if c.json {
		return printJSON(stdout, map[string]string{"driver": c.driver, "name": c.name, "path": line})
	}
	if line != "" {
		fmt.Fprintln(stdout, line)
	}
	return nil
}

// nameOf gets a volume, whose name is the old one's answer.
func nameOf(b backend, found *client.Volume) func(context.Context, command) (string, error) {
	return func(ctx context.Context, c command) (name string, err error) {
		*found, err = b.get(ctx, c)
		return found.Name, err
	}
}

// choose decides who does the work. An isolator that answers does; one that is installed and does not answer is waited for; the
// plugin itself is spoken to only where none is installed, and never about a claim of ours.
func choose(ctx context.Context, e environ, c command) (backend, error) {
	iso := &throughIsolator{client: client.New(e.socket), socket: e.socket}
	if e.installed || claimed(c) {
		return iso, nil
	}
	if iso.answers(ctx) {
		return iso, nil
	}
	return newDirect(e, c)
}

// claimed tells whether options of ours came, whoever gave them.
func claimed(c command) bool {
	for k := range c.options {
		if strings.HasPrefix(strings.ToLower(k), volume.OptionPrefix) {
			return true
		}
	}
	return false
}

// failed prints an error on one line, so that Mesos's status message reads well.
func failed(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "dvdcli: %s\n", strings.Join(strings.Fields(err.Error()), " "))
	return 1
}

func versionText() string {
	rev := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				rev = s.Value
			}
		}
	}
	return fmt.Sprintf("Binary: dvdcli\nSemVer: %s\nCommit: %s\nProgram: holdfast\n", version, rev)
}

// waitForIsolator bounds how long a restart of the isolator may take before dvdcli gives up.
const waitForIsolator = 30 * time.Second
