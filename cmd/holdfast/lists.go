package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

type ctxT = context.Context

func volumeCommand(c *console) *cobra.Command {
	return verbs("volume", "Volumes: list, show, remove", volumeList(c), volumeShow(c), volumeRemove(c))
}

func volumeList(c *console) *cobra.Command {
	return &cobra.Command{
		Use: "list [APP]", Aliases: []string{"ls"}, Short: "List volumes, of one app or of all", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) == 1 {
				app = absoluteID(args[0])
			}
			list, err := c.client().Volumes(cmd.Context(), app)
			if err != nil {
				return err
			}
			if c.json() {
				c.encode(c.out, nonNil(list))
				return nil
			}
			t := table{head: []string{"VOLUME", "SIZE", "PHASE", "INSTANCE", "IN USE", "CLAIM", "NODE"}}
			for _, v := range list {
				claim, node := "-", "-"
				if v.Claim != nil {
					claim, node = fmt.Sprintf("%s (%d)", v.Claim.State, v.Claim.Epoch), dash(v.Claim.Hostname)
				}
				t.add(v.Driver+"/"+v.Name, dash(v.Size), v.Phase, dash(v.Instance), yes(v.InUse), claim, node)
			}
			t.print(c.out)
			return nil
		},
	}
}

func volumeShow(c *console) *cobra.Command {
	return &cobra.Command{
		Use: "show VOLUME", Short: "Show one volume, by uid, driver/name or name", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := c.client().Volume(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json() {
				c.encode(c.out, v)
				return nil
			}
			fmt.Fprintf(c.out, "%s/%s  %s  %s\n  uid %s, created %s ago%s\n  app %s, instance %s, in use: %s\n",
				v.Driver, v.Name, dash(v.Size), v.Phase, v.UID, ago(v.CreatedAt), mark(v.Adopted, ", adopted"), dash(v.App), dash(v.Instance), yes(v.InUse))
			if k := v.Claim; k != nil {
				fmt.Fprintf(c.out, "  claim %s, epoch %d, node %s, since %s%s\n", k.State, k.Epoch, dash(k.Hostname), ago(k.Since), mark(k.Revoke, ", revoked"))
			}
			if v.Error != "" {
				fmt.Fprintf(c.out, "  error: %s\n", v.Error)
			}
			return nil
		},
	}
}

func volumeRemove(c *console) *cobra.Command {
	return &cobra.Command{
		Use: "remove VOLUME", Aliases: []string{"rm"}, Short: "Delete a volume and its data; refused while it is in use", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.client().RemoveVolume(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			c.warn(r)
			if c.json() {
				c.encode(c.out, r)
			} else {
				fmt.Fprintf(c.out, "remove %s: accepted\n", args[0])
			}
			return nil
		},
	}
}

func nodeCommand(c *console) *cobra.Command {
	return verbs("node", "Nodes: list", &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List nodes, and agents without a node helper", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Nodes(cmd.Context())
			if err != nil {
				return err
			}
			if c.json() {
				c.encode(c.out, nonNil(list))
				return nil
			}
			t := table{head: []string{"NODE", "STATE", "ZONE", "CPUS", "MEM", "CLAIMS", "DRIVERS", "INSTANCES"}}
			for _, n := range list {
				var drivers []string
				for _, d := range n.Drivers {
					drivers = append(drivers, d.Name+mark(!d.Ready, " (not ready)"))
				}
				t.add(n.Hostname, n.State, dash(n.Zone), number(n.CPUs), number(n.MemMB), fmt.Sprint(n.Claims), join(drivers), join(n.Instances))
			}
			t.print(c.out)
			return nil
		},
	})
}

func claimCommand(c *console) *cobra.Command {
	return verbs("claim", "Claims: list", &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List who may have which volume mounted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Claims(cmd.Context())
			if err != nil {
				return err
			}
			if c.json() {
				c.encode(c.out, nonNil(list))
				return nil
			}
			t := table{head: []string{"VOLUME", "STATE", "EPOCH", "NODE", "SINCE", "OWNER"}}
			for _, k := range list {
				t.add(k.Driver+"/"+k.Name, k.State+mark(k.Revoke, ", revoked")+mark(k.Tombstone, ", removed"), fmt.Sprint(k.Epoch), dash(k.Hostname), ago(k.Since), dash(k.Owner))
			}
			t.print(c.out)
			return nil
		},
	})
}

func deploymentCommand(c *console) *cobra.Command {
	var force bool
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the deployments under way", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Deployments(cmd.Context())
			if err != nil {
				return err
			}
			if c.json() {
				c.encode(c.out, nonNil(list))
				return nil
			}
			t := table{head: []string{"DEPLOYMENT", "STEP", "SINCE", "APPS", "NOW"}}
			for _, d := range list {
				var now []string
				if d.Step >= 1 && d.Step <= len(d.Steps) {
					for _, a := range d.Steps[d.Step-1].Actions {
						now = append(now, a.Action+" "+a.App)
					}
				}
				t.add(d.ID, fmt.Sprintf("%d/%d", d.Step, len(d.Steps)), ago(d.CreatedAt), join(d.Apps), strings.Join(now, ", "))
			}
			t.print(c.out)
			return nil
		},
	}
	cancel := &cobra.Command{
		Use: "cancel DEPLOYMENT", Short: "Roll a deployment back; --force leaves things as they are", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.client().CancelDeployment(cmd.Context(), args[0], force)
			if err != nil {
				return err
			}
			c.warn(r)
			if c.json() {
				c.encode(c.out, r)
			} else {
				fmt.Fprintf(c.out, "cancel %s: accepted, deployment %s\n", args[0], dash(r.Deployment))
			}
			return nil
		},
	}
	cancel.Flags().BoolVar(&force, "force", false, "abandon it where it is instead of rolling back")
	return verbs("deployment", "Deployments: list, cancel", list, cancel)
}

func explainCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use: "explain ID", Short: "Say why an app, instance, volume or node is as it is", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := c.client().Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json() {
				c.encode(c.out, x)
				return nil
			}
			fmt.Fprintf(c.out, "%s %s: %s\n", x.Kind, x.ID, x.Summary)
			for _, l := range x.Lines {
				fmt.Fprintf(c.out, "  %s\n", l)
			}
			return nil
		},
	}
}

func versionCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if c.json() {
				c.encode(c.out, map[string]string{"version": version})
			} else {
				fmt.Fprintln(c.out, "holdfast "+version)
			}
			return nil
		},
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func mark(b bool, text string) string {
	if b {
		return text
	}
	return ""
}
