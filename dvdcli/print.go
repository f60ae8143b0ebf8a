package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
)

func printJSON(stdout io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode the answer")
	}
	_, err = fmt.Fprintf(stdout, "%s\n", raw)
	return fault.Wrap(fault.Unavailable, err, "print the answer")
}

func printNames(ctx context.Context, b backend, c command, stdout io.Writer) error {
	names, err := b.list(ctx, c)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(stdout, append([]string{}, names...))
	}
	for _, n := range names {
		fmt.Fprintln(stdout, n)
	}
	return nil
}

func printCapabilities(ctx context.Context, b backend, c command, stdout io.Writer) error {
	all, err := b.capabilities(ctx, c)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(stdout, append([]client.Capability{}, all...))
	}
	w := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "DRIVER\tSCOPE\tCAN\tREADY")
	for _, d := range all {
		can := []string{}
		for _, f := range []struct {
			has  bool
			word string
		}{{d.FlushOnUnmount, "flush-on-unmount"}, {d.SelfAttach, "self-attach"}, {d.Exclusive, "exclusive"}, {d.MultiAttach, "multi-attach"},
			{d.Snapshots, "snapshots"}, {d.Clones, "clones"}, {d.Grows != "", "grows"}, {d.Encrypts, "encrypts"}} {
			if f.has {
				can = append(can, f.word)
			}
		}
		ready := "yes"
		if !d.Ready {
			ready = "no: " + strings.Join(strings.Fields(d.Because), " ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Driver, d.Scope, strings.Join(can, ","), ready)
	}
	return w.Flush()
}

func printStatus(ctx context.Context, b backend, c command, stdout io.Writer) error {
	all, err := b.status(ctx, c)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(v client.VolumeStatus) bool {
		return c.driver != "" && v.Driver != c.driver || c.name != "" && v.Name != c.name
	})
	if c.json {
		return printJSON(stdout, append([]client.VolumeStatus{}, all...))
	}
	w := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "DRIVER\tVOLUME\tPHASE\tOWNERS\tTASK\tSINCE\tPATH\tBECAUSE")
	for _, v := range all {
		since := "-"
		if !v.Since.IsZero() {
			since = v.Since.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Driver, v.Name, v.Phase, orDash(strings.Join(v.Owners, ",")), orDash(v.Task), since,
			orDash(v.Path), orDash(strings.Join(strings.Fields(v.Because), " ")))
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
