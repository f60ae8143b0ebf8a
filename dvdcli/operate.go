package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// operates are the verbs that the isolator does as operations.
var operates = map[string]bool{client.OpSnapshot: true, client.OpSnapshots: true, client.OpRemoveSnapshot: true, client.OpResize: true}

// request is the operation that a command line asks for.
func request(c command, now time.Time) (client.OperationRequest, error) {
	r := client.OperationRequest{Kind: c.verb, Driver: c.driver, Name: c.name, Snapshot: c.snapshot}
	for k, v := range c.options {
		switch {
		case k == "size" && c.verb == client.OpResize && c.size == "":
			c.size = v
		case k == "snapshot" && (c.verb == client.OpSnapshot || c.verb == client.OpRemoveSnapshot) && r.Snapshot == "":
			r.Snapshot = v
		default:
			return r, fault.New(fault.Invalid, "%s volume %s/%s: option %q is not known, or given twice", c.verb, c.driver, c.name, k)
		}
	}
	switch c.verb {
	case client.OpSnapshot:
		if r.Snapshot == "" {
			r.Snapshot = now.UTC().Format("snap-20060102T150405Z")
		}
	case client.OpRemoveSnapshot:
		if r.Snapshot == "" {
			return r, fault.New(fault.Invalid, "remove-snapshot: say which by --snapshot NAME")
		}
	case client.OpResize:
		if c.size == "" {
			return r, fault.New(fault.Invalid, "resize: say how large by --size SIZE, e.g. 20 (GiB) or 500MiB")
		}
		size, err := volume.ParseSize(c.size)
		if err != nil {
			return r, fault.Op(err, "resize volume %s/%s", c.driver, c.name)
		}
		r.SizeBytes = int64(size)
	}
	return r, nil
}

// operate has an operation done and prints what came of it: the snapshot's name, the names of all, or the size.
func operate(ctx context.Context, b backend, c command, stdout io.Writer) error {
	r, err := request(c, time.Now())
	if err != nil {
		return err
	}
	o, err := b.operate(ctx, c, r)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(stdout, o.Result)
	}
	switch c.verb {
	case client.OpSnapshot:
		fmt.Fprintln(stdout, r.Snapshot)
	case client.OpSnapshots:
		return printSnapshots(stdout, o.Result.Snapshots)
	case client.OpResize:
		g := o.Result.Growth
		fmt.Fprintln(stdout, volume.Bytes(g.SizeBytes))
		if g.PendingBytes > 0 {
			fmt.Fprintf(stdout, "%s at the next mount: %s\n", volume.Bytes(g.PendingBytes), strings.Join(strings.Fields(g.Because), " "))
		}
	}
	return nil
}

func printSnapshots(stdout io.Writer, all []client.Snapshot) error {
	w := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "VOLUME\tSNAPSHOT\tCREATED\tSIZE\tREADY")
	for _, s := range all {
		created, size, ready := "-", "-", "yes"
		if !s.Created.IsZero() {
			created = s.Created.UTC().Format(time.RFC3339)
		}
		if s.SizeBytes > 0 {
			size = volume.Bytes(s.SizeBytes).String()
		}
		if !s.Ready {
			ready = "no"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Volume, s.Name, created, size, ready)
	}
	return w.Flush()
}

func (t *throughIsolator) operate(ctx context.Context, _ command, r client.OperationRequest) (o client.Operation, err error) {
	err = t.call(ctx, true, func() error {
		o, err = t.client.Operate(ctx, r, nil)
		return err
	})
	return o, err
}

func (t *direct) operate(_ context.Context, c command, _ client.OperationRequest) (client.Operation, error) {
	return client.Operation{}, fault.New(fault.Invalid, "%s volume %s/%s: the Docker volume plugin protocol has no %s; it needs an isolator on this node, and a driver that can; nothing was done",
		c.verb, c.driver, c.name, c.verb)
}
