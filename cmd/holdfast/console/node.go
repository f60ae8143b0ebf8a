package console

import (
	"fmt"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func nodeCommand(c *Console) *cobra.Command {
	return Verbs("node", "Nodes: list, show, cordon, uncordon, drain, decommission, forget, fence", fenceNode(c), nodeList(c), nodeShow(c),
		nodeOrder(c, "cordon", "Place nothing new on a node; what runs there stays"),
		nodeOrder(c, "uncordon", "Take back cordon, drain and decommission"),
		nodeOrder(c, "drain", "Move what runs on a node to others, one by one and within minimum health; volumes are handed over"),
		nodeOrder(c, "decommission", "Drain a node that will not come back; its record is retired once it is empty and its isolator has stopped"),
		nodeOrder(c, "forget", "Retire the record of a dead node on which nothing is left"))
}

func nodeList(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List nodes, and agents without a node helper", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.Client().Nodes(cmd.Context())
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"NODE", "STATE", "ZONE", "CPUS", "MEM", "CLAIMS", "DRIVERS", "INSTANCES"}}
			for _, n := range list {
				var drivers []string
				for _, d := range n.Drivers {
					drivers = append(drivers, d.Name+mark(!d.Ready, " (not ready)"))
				}
				t.Add(n.Hostname, nodeState(&n), dash(n.Zone), number(n.CPUs), number(n.MemMB), fmt.Sprint(n.Claims), Join(drivers), Join(n.Instances))
			}
			t.Print(c.Out)
			return nil
		},
	}
}

// nodeState is a node's state, with what an operator wants of it where that is another thing.
func nodeState(n *client.Node) string {
	if n.Order != nil && n.Order.State != n.State {
		return n.State + ", " + n.Order.State
	}
	return n.State
}

func nodeShow(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "show NODE", Short: "Show one node, by host name, uid or agent id, and what it waits for", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := c.Client().Node(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, n)
				return nil
			}
			printNode(c, n)
			return nil
		},
	}
}

func printNode(c *Console, n *client.Node) {
	fmt.Fprintf(c.Out, "%s  %s\n  uid %s, agent %s, claims %d\n", n.Hostname, nodeState(n), dash(n.UID), dash(n.Agent), n.Claims)
	if o := n.Order; o != nil {
		fmt.Fprintf(c.Out, "  %s for %s%s%s\n", o.State, ago(o.Since), mark(o.By != "", " by "+o.By), mark(o.Reason != "", ": "+o.Reason))
	}
	if m := n.Maintenance; m != nil {
		fmt.Fprintf(c.Out, "  maintenance from %s%s\n", m.Start.Local().Format(time.DateTime), mark(m.DurationSeconds > 0, fmt.Sprintf(" for %s", time.Duration(m.DurationSeconds)*time.Second)))
	}
	fmt.Fprintf(c.Out, "  instances %s\n", dash(Join(n.Instances)))
	if n.Leaving != "" {
		fmt.Fprintf(c.Out, "  being emptied: %s\n", n.Leaving)
	}
	for _, w := range n.Waits {
		fmt.Fprintf(c.Out, "    %s: %s\n", w.Instance, w.Text)
	}
}

func nodeOrder(c *Console, verb, short string) *cobra.Command {
	var reason string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: verb + " NODE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.Client().OrderNode(cmd.Context(), args[0], verb, reason, userName())
			if err != nil {
				return err
			}
			c.Warn(r)
			if wait > 0 {
				return c.waitEmpty(cmd.Context(), args[0], wait)
			}
			if c.JSON() {
				c.Encode(c.Out, r)
			} else {
				fmt.Fprintf(c.Out, "%s %s: accepted\n", verb, args[0])
			}
			return nil
		},
	}
	if verb != "uncordon" && verb != "forget" {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for others to read")
		oneWord(cmd.Flags())
	}
	if verb == "drain" || verb == "decommission" {
		cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long until the node is empty, and show what it waits for")
	}
	return cmd
}

// waitEmpty waits until nothing is left on a node, and shows each change of what it waits for.
func (c *Console) waitEmpty(ctx ctxT, node string, limit time.Duration) error {
	end := time.Now().Add(limit)
	said := ""
	for {
		n, err := c.Client().Node(ctx, node)
		if err != nil {
			return err
		}
		if n.Order != nil && !n.Order.EmptyAt.IsZero() {
			if c.JSON() {
				c.Encode(c.Out, n)
			} else {
				fmt.Fprintf(c.Out, "%s is %s\n", n.Hostname, n.Order.State)
			}
			return nil
		}
		now := ""
		for _, w := range n.Waits {
			now += fmt.Sprintf("  %s: %s\n", w.Instance, w.Text)
		}
		if now != said && !c.JSON() {
			fmt.Fprintf(c.Out, "%s: %d instances are left\n%s", n.Hostname, len(n.Waits), now)
		}
		said = now
		if time.Now().After(end) {
			return fault.New(fault.Unknown, "node %s is not empty after %s; the order stands, and goes on", node, limit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// userName names who gives an order, for the log and for others to read.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func freezeCommand(c *Console) *cobra.Command {
	var reason string
	var lasts time.Duration
	cmd := &cobra.Command{
		Use: "freeze", Short: "Start, move and kill nothing until it is thawed", Args: cobra.NoArgs,
		Long:    "Nothing is started, moved or killed until holdfast thaw. Nodes that cannot renew their lease fence themselves all the same.",
		Example: "  holdfast freeze --reason \"core switches are replaced\" --for 2h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reason == "" {
				return Usage("--reason is needed: people will ask why nothing moves")
			}
			r, err := c.Client().Freeze(cmd.Context(), reason, userName(), lasts)
			if err != nil {
				return err
			}
			return c.showHold(cmd.Context(), r)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for others to read")
	oneWord(cmd.Flags())
	cmd.Flags().DurationVar(&lasts, "for", 0, "end by itself after so long (default: it lasts until holdfast thaw)")
	return cmd
}

func thawCommand(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "thaw", Short: "End a freeze, and release the brake", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.Client().Thaw(cmd.Context(), userName())
			if err != nil {
				return err
			}
			return c.showHold(cmd.Context(), r)
		},
	}
}

func holdCommand(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "hold", Short: "Say whether anything may be started, moved or killed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.showHold(cmd.Context(), nil) },
	}
}

// showHold prints whether there is a hold, after an order or without one.
func (c *Console) showHold(ctx ctxT, r *client.Result) error {
	if r != nil {
		c.Warn(r)
	}
	h, err := c.Client().Hold(ctx)
	if err != nil {
		return err
	}
	switch {
	case c.JSON():
		c.Encode(c.Out, h)
	case !h.Held:
		fmt.Fprintln(c.Out, "nothing is held: instances are started, moved and killed as needed")
	default:
		fmt.Fprintf(c.Out, "%s\n  since %s%s\n", h.Reason, h.Since.Local().Format(time.DateTime), mark(!h.Until.IsZero(), ", until "+h.Until.Local().Format(time.DateTime)))
		if len(h.Nodes) > 0 {
			fmt.Fprintf(c.Out, "  vanished: %s\n", Join(h.Nodes))
		}
	}
	return nil
}
