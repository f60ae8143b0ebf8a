package console

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// waiter is `--wait`: it follows a deployment and shows how far it is.
type waiter struct {
	wait    bool
	limit   time.Duration
	removal bool
}

func (w *waiter) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until it is done and show the progress")
	cmd.Flags().DurationVar(&w.limit, "timeout", 10*time.Minute, "with --wait: give up waiting after this (exit code 6; the deployment goes on)")
}

// until returns when the deployment is over and the app is as wanted. An API that is away for a moment is waited for: the
// framework may be restarting.
func (w *waiter) until(ctx context.Context, c *Console, deployment, id string) error {
	ctx, cancel := context.WithTimeout(ctx, w.limit)
	defer cancel()
	p := progress{out: c.Out}
	if c.JSON() {
		p.out = c.Err
	}
	defer p.end()
	began := time.Now()
	for {
		line, done, err := appProgress(ctx, c.Client(), deployment, id, w.removal)
		switch {
		case err != nil && ctx.Err() == nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown):
			return err
		case err != nil && ctx.Err() == nil:
			line = "waiting for the framework: " + err.Error()
		case done:
			p.show(fmt.Sprintf("%s (%.1f s)", line, time.Since(began).Seconds()))
			return nil
		}
		if ctx.Err() == nil {
			p.show(line)
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unknown, "still waiting after %v: %s; to see why: holdfast explain %s", time.Since(began).Round(time.Second), p.last, id)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// appProgress is one line about an app, and whether its deployment is over.
func appProgress(ctx context.Context, api *client.Client, deployment, id string, removal bool) (line string, done bool, err error) {
	deployments, err := api.Deployments(ctx)
	if err != nil {
		return "", false, err
	}
	under := false
	for _, d := range deployments {
		under = under || d.ID == deployment
	}
	a, err := api.App(ctx, id)
	if fault.Is(err, fault.NotFound) && removal {
		return id + " removed", !under, nil
	}
	if err != nil {
		return "", false, err
	}
	line = fmt.Sprintf("%s: %d of %d running", id, a.Running, a.Instances)
	if a.Stopping > 0 {
		line += fmt.Sprintf(", %d stopping", a.Stopping)
	}
	done = !under && !removal && !a.Removed && a.Running == a.Instances && a.Stopping == 0 && a.Deployment == ""
	if !done && a.Status != "" && a.Status != "running" {
		line += ": " + a.Status
	}
	return line, done, nil
}

// progress shows one line that changes: over itself on a terminal, as lines of their own elsewhere.
type progress struct {
	out  io.Writer
	last string
	open bool
}

func (p *progress) show(line string) {
	if line == p.last || line == "" {
		return
	}
	p.last = line
	if width := TerminalWidth(p.out); width > 0 {
		fmt.Fprint(p.out, "\r\x1b[K"+Cut(strings.ReplaceAll(line, "\n", " "), width-1))
		p.open = true
		return
	}
	fmt.Fprintln(p.out, line)
}

func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}
