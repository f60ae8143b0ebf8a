package console

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// appPut is `app put`: the file is the whole app, new or not.
func appPut(c *Console) *cobra.Command {
	var o client.PutOptions
	var w waiter
	cmd := &cobra.Command{
		Use: "put FILE", Short: "Create an app or make it what its Marathon JSON says; - reads standard input",
		Example: "  holdfast app put db.json --dry-run\n  holdfast app put db.json --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			r, err := c.Client().PutApp(cmd.Context(), body, o)
			if err != nil {
				return err
			}
			if o.Dry {
				return c.planned(r)
			}
			return c.accepted(cmd, r, AppID(body), "put", &w)
		},
	}
	cmd.Flags().BoolVar(&o.Partial, "partial", false, "fields given replace those the app has; without, the file is the whole app")
	cmd.Flags().BoolVar(&o.Force, "force", false, "replace a deployment that is in the way")
	cmd.Flags().BoolVar(&o.Dry, "dry-run", false, "change nothing; show the steps and what would be another, field by field")
	w.flags(cmd)
	return cmd
}

func appVersions(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "versions APP", Short: "List the versions of an app, newest first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := c.Client().Versions(cmd.Context(), absoluteID(args[0]))
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"VERSION"}}
			for _, v := range list {
				t.Add(v)
			}
			t.Print(c.Out)
			return nil
		},
	}
}

func appRollback(c *Console) *cobra.Command {
	var force, dry bool
	var w waiter
	cmd := &cobra.Command{
		Use: "rollback APP [VERSION]", Short: "Put an app back to an earlier version, the one before without VERSION", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, version := absoluteID(args[0]), ""
			if len(args) == 2 {
				version = args[1]
			} else {
				list, err := c.Client().Versions(cmd.Context(), id)
				if err != nil {
					return err
				}
				if len(list) < 2 {
					return fault.New(fault.NotFound, "app %s has no version before %s", id, Join(list))
				}
				version = list[1]
			}
			r, err := c.Client().Rollback(cmd.Context(), id, version, force, dry)
			if err != nil {
				return err
			}
			if dry {
				return c.planned(r)
			}
			return c.accepted(cmd, r, id, "rollback", &w)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a deployment that is in the way")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing; show what would be another")
	w.flags(cmd)
	return cmd
}

func groupCommand(c *Console) *cobra.Command {
	var force, dry bool
	put := &cobra.Command{
		Use: "put FILE", Short: "Create or update a group and all apps in it from its Marathon JSON; - reads standard input", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			r, err := c.Client().PutGroup(cmd.Context(), AppID(body), body, force, dry)
			if err != nil {
				return err
			}
			if dry {
				return c.planned(r)
			}
			c.Warn(r)
			if c.JSON() {
				c.Encode(c.Out, r)
				return nil
			}
			fmt.Fprintf(c.Out, "put %s: accepted, deployment %s\n  follow it: holdfast deployment list\n", dash(AppID(body)), dash(r.Deployment))
			return nil
		},
	}
	put.Flags().BoolVar(&force, "force", false, "replace deployments that are in the way")
	put.Flags().BoolVar(&dry, "dry-run", false, "change nothing; show the steps and what would be another, field by field")
	var removeForce, wipe bool
	remove := &cobra.Command{
		Use: "remove GROUP", Aliases: []string{"rm"}, Short: "Stop and remove a group and all apps in it; volumes stay unless --wipe", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.Client().RemoveGroup(cmd.Context(), absoluteID(args[0]), removeForce, wipe)
			if err != nil {
				return err
			}
			c.Warn(r)
			if c.JSON() {
				c.Encode(c.Out, r)
				return nil
			}
			fmt.Fprintf(c.Out, "remove %s: accepted, deployment %s\n", absoluteID(args[0]), dash(r.Deployment))
			return nil
		},
	}
	remove.Flags().BoolVar(&removeForce, "force", false, "replace deployments that are in the way")
	remove.Flags().BoolVar(&wipe, "wipe", false, "delete the volumes of its apps and their data too")
	return Verbs("group", "Groups of apps: put, remove", put, remove)
}

// planned prints what a dry run found.
func (c *Console) planned(r *client.Result) error {
	c.Warn(r)
	if c.JSON() {
		c.Encode(c.Out, map[string]any{"steps": nonNil(r.Steps), "changes": nonNil(r.Changes)})
		return nil
	}
	printPlan(c.Out, r)
	return nil
}

func printPlan(w io.Writer, r *client.Result) {
	if len(r.Changes) == 0 && len(r.Steps) == 0 {
		fmt.Fprintln(w, "nothing would change")
		return
	}
	for n, s := range r.Steps {
		var acts []string
		for _, a := range s.Actions {
			acts = append(acts, a.Action+" "+a.App)
		}
		fmt.Fprintf(w, "step %d: %s\n", n+1, strings.Join(acts, ", "))
	}
	for _, c := range r.Changes {
		fmt.Fprintf(w, "%s %s", c.Action, c.App)
		if c.Action != "remove" && c.FromInstances != c.ToInstances {
			fmt.Fprintf(w, ", %d instances instead of %d", c.ToInstances, c.FromInstances)
		}
		fmt.Fprintln(w)
		if c.Action == "create" {
			continue // everything is new
		}
		t := Table{Head: []string{"  FIELD", "NOW", "THEN"}}
		for _, d := range c.Differences {
			t.Add("  "+d.Path, value(d.From), value(d.To))
		}
		if len(c.Differences) > 0 {
			t.Print(w)
		}
	}
}

// value prints a JSON value on a part of a line.
func value(v json.RawMessage) string {
	if len(v) == 0 {
		return "-"
	}
	return Cut(string(v), 60)
}

// deploymentHold is `deployment pause` and `deployment resume`.
func deploymentHold(c *Console, verb, short string, act func(*client.Client, ctxT, string) (*client.Result, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " DEPLOYMENT", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := act(c.Client(), cmd.Context(), args[0])
			if err != nil {
				return err
			}
			c.Warn(r)
			if c.JSON() {
				c.Encode(c.Out, r)
			} else {
				fmt.Fprintf(c.Out, "%s %s: accepted\n", verb, args[0])
			}
			return nil
		},
	}
}

// instanceReplace is `instance replace`.
func instanceReplace(c *Console) *cobra.Command {
	discard := false
	cmd := instanceAct(c, "replace", "Give an instance a new run elsewhere; external volumes follow it, local ones are given up with --discard-data",
		func(api *client.Client, ctx ctxT, id string) (*client.Result, error) {
			return api.ReplaceInstance(ctx, id, discard)
		})
	cmd.Flags().BoolVar(&discard, "discard-data", false, "local persistent volumes are deleted with their data, and made anew elsewhere")
	return cmd
}
