package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

const defaultAPI = "http://127.0.0.1:8080"

// console is what the verbs for people share: where the framework is, and how to print.
type console struct {
	api    string
	output string // "text" or "json"
	in     io.Reader
	out    io.Writer
	err    io.Writer
	// began is set when a command line was understood: an error before that is one of usage.
	began bool
}

// usageError is a command line that is wrong in a way cobra does not see.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// execute runs one command line and gives its exit code, as internal/fault lists them.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	c := &console{in: in, out: out, err: errOut}
	root := rootCommand(c)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return fault.ExitOK
	}
	var usage usageError
	if !c.began || errors.As(err, &usage) {
		fmt.Fprintf(errOut, "holdfast: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return fault.ExitUsage
	}
	c.complain(err)
	return fault.ExitCode(fault.ClassOf(err))
}

func rootCommand(c *console) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Stateful apps on Apache Mesos: every instance keeps its own volume, wherever it runs",
		Long: "Holdfast runs stateful, multi-instance apps on Apache Mesos. Every instance has its own volume, and the volume\n" +
			"moves with the instance, never mounted twice.\n\nTo see it work on this machine: holdfast dev --example counter",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: group,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			c.began = true
			if c.output != "text" && c.output != "json" {
				return usageError{fmt.Sprintf("--output is %q: text and json are known", c.output)}
			}
			return nil
		},
	}
	api := os.Getenv("HOLDFAST_API")
	if api == "" {
		api = defaultAPI
	}
	root.PersistentFlags().StringVar(&c.api, "api", api, "address of the framework's API (HOLDFAST_API)")
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "text or json")
	root.AddGroup(&cobra.Group{ID: "people", Title: "Apps and what they have:"}, &cobra.Group{ID: "run", Title: "Programs:"})
	for _, sub := range []*cobra.Command{appCommand(c), instanceCommand(c), volumeCommand(c), nodeCommand(c), claimCommand(c), deploymentCommand(c), explainCommand(c)} {
		sub.GroupID = "people"
		root.AddCommand(sub)
	}
	for _, sub := range []*cobra.Command{devCommand(c), frameworkCommand(), isolatorCommand()} {
		sub.GroupID = "run"
		root.AddCommand(sub)
	}
	root.AddCommand(demoCommand(c), versionCommand(c))
	return root
}

// group is the RunE of a command that only has verbs: help when there is none, an error when it is unknown.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{text}
}

// verbs makes a command that only has verbs.
func verbs(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: group, SuggestionsMinimumDistance: 2}
	cmd.AddCommand(subs...)
	return cmd
}

func (c *console) client() *client.Client { return client.New(c.api) }

// complain prints an error, and what to do next where that is known.
func (c *console) complain(err error) {
	hint := c.hint(err)
	if c.output == "json" {
		body := map[string]any{"code": fault.ClassOf(err), "message": err.Error()}
		if d := fault.DetailsOf(err); len(d) > 0 {
			body["details"] = d
		}
		if hint != "" {
			body["hint"] = hint
		}
		c.encode(c.err, body)
		return
	}
	fmt.Fprintf(c.err, "holdfast: %v\n", err)
	if hint != "" {
		fmt.Fprintf(c.err, "  %s\n", hint)
	}
}

func (c *console) hint(err error) string {
	text := err.Error()
	switch {
	case fault.Is(err, fault.Unavailable) && strings.Contains(text, "reach the framework"):
		return "Is `holdfast dev` running there? If its API is elsewhere, say so by --api URL or HOLDFAST_API."
	case fault.Is(err, fault.Exists) && strings.Contains(text, "app"):
		return "To change an app that is there: holdfast app add --update FILE"
	case fault.Is(err, fault.Conflict) && strings.Contains(text, "deployment"):
		return "Wait for it (holdfast deployment list), or replace it by --force."
	case fault.Is(err, fault.Unknown):
		return "It may or may not have been done: look before you repeat it."
	}
	return ""
}

func (c *console) json() bool { return c.output == "json" }

func (c *console) encode(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		fmt.Fprintf(c.err, "holdfast: %v\n", err)
	}
}

// warn shows what the server accepted but wants to be seen.
func (c *console) warn(r *client.Result) {
	for _, w := range r.Warnings {
		fmt.Fprintf(c.err, "warning: %s\n", w)
	}
}
