package console

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func instanceCommand(c *Console) *cobra.Command {
	return Verbs("instance", "Instances: list, show, restart, move, replace, pause, resume, logs",
		instanceList(c), instanceShow(c),
		instanceAct(c, "restart", "Restart one instance; it keeps its number and volumes", (*client.Client).RestartInstance),
		instanceAct(c, "move", "Restart one instance on another agent; its volumes follow", (*client.Client).MoveInstance),
		instanceReplace(c),
		instanceAct(c, "pause", "Stop one instance and keep its volumes mounted by an idle command, so that a person can repair the data", (*client.Client).PauseInstance),
		instanceAct(c, "resume", "End a pause: the instance runs its app again", (*client.Client).ResumeInstance),
		instanceAddress(c), instanceLogs(c))
}

func instanceList(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "list [APP]", Aliases: []string{"ls"}, Short: "List instances, of one app or of all", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) == 1 {
				app = absoluteID(args[0])
			}
			list, err := c.Client().Instances(cmd.Context(), app)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			PrintInstances(c.Out, list)
			return nil
		},
	}
}

// PrintInstances prints a table of instances.
func PrintInstances(w io.Writer, list []client.Instance) {
	t := Table{Head: []string{"INSTANCE", "PHASE", "SINCE", "NODE", "PORTS", "RUN", "VOLUMES", "WAITS FOR"}}
	for _, i := range list {
		var names []string
		for _, v := range i.Volumes {
			names = append(names, v.Name)
		}
		t.Add(i.ID, phase(i), ago(i.Since), dash(i.Hostname), Join(i.Ports), fmt.Sprint(i.Incarnation), Join(names), WaitsFor(i))
	}
	t.Print(w)
}

func phase(i client.Instance) string {
	if i.Paused {
		return "paused (" + i.Phase + ")"
	}
	if i.Healthy != nil && !*i.Healthy && i.Phase == "running" {
		return "unhealthy"
	}
	return i.Phase
}

// WaitsFor is the one line that says what an instance waits for, "" for nothing.
func WaitsFor(i client.Instance) string {
	if i.Why != nil {
		return i.Why.Summary
	}
	return ""
}

func instanceShow(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "show INSTANCE", Short: "Show one instance", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := c.Client().Instance(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, i)
				return nil
			}
			fmt.Fprintf(c.Out, "%s  %s since %s  (goal: %s, %d launches)\n", i.ID, phase(*i), ago(i.Since), i.Goal, i.Incarnation)
			if i.Task != "" {
				fmt.Fprintf(c.Out, "  task %s on %s, zone %s, ports %s\n", i.Task, i.Hostname, dash(i.Zone), Join(i.Ports))
			}
			if i.Message != "" {
				fmt.Fprintf(c.Out, "  last status: %s: %s\n", i.MesosState, i.Message)
			}
			for _, v := range i.Volumes {
				fmt.Fprintf(c.Out, "  volume %s/%s at %s: %s, epoch %d\n", v.Driver, v.Name, v.ContainerPath, v.Phase, v.Epoch)
			}
			if i.Why != nil {
				fmt.Fprintf(c.Out, "  waits for: %s\n  more: holdfast explain %s\n", i.Why.Summary, i.ID)
			}
			return nil
		},
	}
}

// instanceAddress is for scripts of apps whose instances look for each other.
func instanceAddress(c *Console) *cobra.Command {
	index := 0
	cmd := &cobra.Command{
		Use: "address INSTANCE", Short: "Print host and port of a running instance, for scripts", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := c.Client().Instance(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case i.Phase != "running":
				return fault.New(fault.Unavailable, "%s is %s", i.ID, i.Phase)
			case index < 0 || index >= len(i.Ports):
				return fault.New(fault.NotFound, "%s has %d ports", i.ID, len(i.Ports))
			}
			host := i.ContainerIP
			if host == "" {
				host = i.Hostname
			}
			if c.JSON() {
				c.Encode(c.Out, map[string]any{"host": host, "port": i.Ports[index]})
			} else {
				fmt.Fprintf(c.Out, "%s %d\n", host, i.Ports[index])
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&index, "index", 0, "which of its ports")
	return cmd
}

func instanceAct(c *Console, verb, short string, act func(*client.Client, ctxT, string) (*client.Result, error)) *cobra.Command {
	var w waiter
	cmd := &cobra.Command{
		Use: verb + " INSTANCE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api := c.Client()
			before, err := api.Instance(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r, err := act(api, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			c.Warn(r)
			if !w.wait {
				if c.JSON() {
					c.Encode(c.Out, r)
				} else {
					fmt.Fprintf(c.Out, "%s %s: accepted\n", verb, args[0])
				}
				return nil
			}
			return w.untilRunning(cmd.Context(), c, before)
		},
	}
	w.flags(cmd)
	return cmd
}

// untilRunning waits until an instance runs again with a later incarnation than before.
func (w *waiter) untilRunning(ctx ctxT, c *Console, before *client.Instance) error {
	p := progress{out: c.Out}
	if c.JSON() {
		p.out = c.Err
	}
	defer p.end()
	for began := time.Now(); ; {
		i, err := c.Client().Instance(ctx, before.ID)
		switch {
		case err != nil && !fault.Is(err, fault.Unavailable):
			return err
		case err != nil:
			p.show("waiting for the framework")
		case i.Phase == "running" && i.Incarnation > before.Incarnation:
			p.show(fmt.Sprintf("%s runs on %s (was on %s)", i.ID, i.Hostname, dash(before.Hostname)))
			if c.JSON() {
				c.Encode(c.Out, i)
			}
			return nil
		default:
			p.show(strings.TrimSuffix(fmt.Sprintf("%s %s: %s", i.ID, i.Phase, WaitsFor(*i)), ": "))
		}
		if time.Since(began) > w.limit {
			return fault.New(fault.Unknown, "still waiting after %v: %s; to see why: holdfast explain %s", w.limit, p.last, before.ID)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func instanceLogs(c *Console) *cobra.Command {
	var o client.LogOptions
	cmd := &cobra.Command{
		Use: "logs INSTANCE", Short: "Print what an instance wrote to stdout", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.Client().Logs(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(c.Out, r)
			if err != nil && (errors.Is(err, cmd.Context().Err()) || cmd.Context().Err() != nil) {
				return nil // Ctrl-C ends following
			}
			return fault.Wrap(fault.Unavailable, err, "read the log of %s", args[0])
		},
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "stay and print what comes, over relaunches too")
	cmd.Flags().StringVar(&o.File, "file", "stdout", "file of the sandbox: stdout, stderr, or another")
	cmd.Flags().Int64Var(&o.Offset, "offset", 0, "where to begin, in bytes; negative counts from the end")
	return cmd
}
