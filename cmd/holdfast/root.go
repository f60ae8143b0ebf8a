package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/cmd/holdfast/takeover"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// execute runs one command line and gives its exit code, as internal/fault lists them.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	c := &console.Console{In: in, Out: out, Err: errOut}
	began := false
	root := rootCommand(c, &began)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return fault.ExitOK
	}
	var usage console.UsageError
	if !began || errors.As(err, &usage) {
		c.Misused(cmd, err)
		return fault.ExitUsage
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = fault.New(fault.Unknown, "interrupted; what was asked for before that goes on")
	}
	c.Complain(err)
	return fault.ExitCode(fault.ClassOf(err))
}

// rootCommand puts all verbs together. began is set when a command line was understood: an error before that is one of usage.
func rootCommand(c *console.Console, began *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Stateful apps on Apache Mesos: every instance keeps its own volume, wherever it runs",
		Long: "Holdfast runs stateful, multi-instance apps on Apache Mesos. Every instance has its own volume, and the volume\n" +
			"moves with the instance, never mounted twice.\n\nTo see it work on this machine: holdfast dev --example counter",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: console.Group, SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			*began = true
			if c.Output != "text" && c.Output != "json" {
				return console.Usage(fmt.Sprintf("--output is %q: text and json are known", c.Output))
			}
			made, err := apiClient(c.API)
			if err != nil {
				return err
			}
			c.Connect = func(address string) *client.Client {
				if address == c.API {
					return made
				}
				return client.New(address)
			}
			return nil
		},
	}
	api := os.Getenv("HOLDFAST_API")
	if api == "" {
		api = console.DefaultAPI
	}
	root.PersistentFlags().StringVar(&c.API, "api", api, "address of the framework's API (HOLDFAST_API)")
	root.PersistentFlags().StringVarP(&c.Output, "output", "o", "text", "text or json")
	root.AddGroup(&cobra.Group{ID: "people", Title: "Apps and what they have:"}, &cobra.Group{ID: "run", Title: "Programs:"})
	for _, sub := range append(c.Commands(), takeover.Import(c)) {
		if sub.Name() == "volume" {
			sub.AddCommand(takeover.Adopt(c))
		}
		sub.GroupID = "people"
		root.AddCommand(sub)
	}
	for _, sub := range []*cobra.Command{devCommand(c), frameworkCommand(), isolatorCommand(), csiPluginCommand()} {
		sub.GroupID = "run"
		root.AddCommand(sub)
	}
	root.AddCommand(demoCommand(c), leaseCommand(c), stateCommand(c), versionCommand(c))
	return root
}
