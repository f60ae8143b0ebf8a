// Package console is the command line for people: the verbs that look at apps, instances, volumes, nodes, claims and deployments and
// change them, through the framework's API; how they print, wait, and complain.
package console

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// DefaultAPI is where a framework is unless somebody says otherwise.
const DefaultAPI = "http://127.0.0.1:8080"

// Console is what the verbs share: where the framework is, and how to print.
type Console struct {
	// Connect makes the client of the framework at an address; nil for client.New.
	Connect func(address string) *client.Client
	API     string
	Output  string // "text" or "json"
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
}

// Commands gives the verbs.
func (c *Console) Commands() []*cobra.Command {
	return []*cobra.Command{appCommand(c), groupCommand(c), instanceCommand(c), volumeCommand(c), classCommand(c), nodeCommand(c), claimCommand(c), reservationsCommand(c), operationCommand(c), deploymentCommand(c), explainCommand(c), peersCommand(c), failoverCommand(c), startOverCommand(c), uninstallCommand(c), freezeCommand(c), thawCommand(c), holdCommand(c)}
}

// UsageError is a command line that is wrong in a way cobra does not see.
type UsageError string

func (e UsageError) Error() string { return string(e) }

// Usage makes a UsageError.
func Usage(text string) error { return UsageError(text) }

// Group is the RunE of a command that only has verbs: help when there is none, an error when it is unknown.
func Group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return Usage(text)
}

// Verbs makes a command that only has verbs.
func Verbs(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: Group, SuggestionsMinimumDistance: 2}
	cmd.AddCommand(subs...)
	return cmd
}

// oneWord lets --why stand for --reason.
func oneWord(f *pflag.FlagSet) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "why" {
			name = "reason"
		}
		return pflag.NormalizedName(name)
	})
}

// Client talks to the framework.
func (c *Console) Client() *client.Client {
	if c.Connect != nil {
		return c.Connect(c.API)
	}
	return client.New(c.API)
}

// Complain prints an error, and what to do next where that is known.
func (c *Console) Complain(err error) {
	hint := c.hint(err)
	if c.Output == "json" {
		body := map[string]any{"code": fault.ClassOf(err), "message": err.Error()}
		if d := fault.DetailsOf(err); len(d) > 0 {
			body["details"] = d
		}
		if hint != "" {
			body["hint"] = hint
		}
		c.Encode(c.Err, body)
		return
	}
	fmt.Fprintf(c.Err, "holdfast: %v\n", err)
	if hint != "" {
		fmt.Fprintf(c.Err, "  %s\n", hint)
	}
}

// Misused prints an error of the command line itself.
func (c *Console) Misused(cmd *cobra.Command, err error) {
	text := err.Error()
	if strings.Contains(text, " arg(s)") {
		text += ": " + strings.TrimSuffix(cmd.UseLine(), " [flags]")
	}
	help := fmt.Sprintf("Run '%s --help' for usage.", cmd.CommandPath())
	if c.JSON() {
		c.Encode(c.Err, map[string]any{"code": fault.Invalid, "message": text, "hint": help})
		return
	}
	fmt.Fprintf(c.Err, "holdfast: %s\n%s\n", text, help)
}

func (c *Console) hint(err error) string {
	text := err.Error()
	switch {
	case fault.Is(err, fault.Unavailable) && strings.Contains(text, "reach the framework"):
		return "Is `holdfast dev` running there? If its API is elsewhere, say so by --api URL or HOLDFAST_API."
	case fault.Is(err, fault.Exists) && strings.Contains(text, "app") && !strings.HasPrefix(text, "volume"):
		return "To change an app that is there: holdfast app add --update FILE"
	case fault.Is(err, fault.Conflict) && strings.Contains(text, "deployment"):
		return "Wait for it (holdfast deployment list), or replace it by --force."
	case fault.Is(err, fault.Unknown) && !strings.Contains(text, "go on") && !strings.Contains(text, "goes on") && !strings.Contains(text, "still "):
		return "It may or may not have been done: look before you repeat it."
	}
	return ""
}

// JSON tells whether output is for programs.
func (c *Console) JSON() bool { return c.Output == "json" }

// Encode prints a value as JSON.
func (c *Console) Encode(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		fmt.Fprintf(c.Err, "holdfast: %v\n", err)
	}
}

// Warn shows what the server accepted but wants to be seen.
func (c *Console) Warn(r *client.Result) {
	for _, w := range r.Warnings {
		fmt.Fprintf(c.Err, "warning: %s\n", w)
	}
}
