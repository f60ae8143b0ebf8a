package console

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// maxAppFile bounds an app file; the server refuses far less.
const maxAppFile = 16 << 20

func appCommand(c *Console) *cobra.Command {
	return Verbs("app", "Apps: add, put, list, show, scale, restart, versions, rollback, remove",
		appAdd(c), appPut(c), appVersions(c), appRollback(c), appList(c), appShow(c), appScale(c), appRestart(c), appRemove(c))
}

func appAdd(c *Console) *cobra.Command {
	var update, force bool
	var w waiter
	cmd := &cobra.Command{
		Use: "add FILE", Short: "Add an app from its Marathon JSON; - reads standard input",
		Example: "  holdfast app add examples/counter/app.json --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			r, err := c.Client().PutApp(cmd.Context(), body, client.PutOptions{CreateOnly: !update, Partial: update, Force: force})
			if err != nil {
				return err
			}
			return c.accepted(cmd, r, AppID(body), "add", &w)
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "change the app if it is there: fields given replace those it has")
	cmd.Flags().BoolVar(&force, "force", false, "replace a deployment that is in the way")
	w.flags(cmd)
	return cmd
}

func appList(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the apps", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			apps, err := c.Client().Apps(cmd.Context())
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(apps))
				return nil
			}
			if len(apps) == 0 {
				fmt.Fprintln(c.Out, "No apps. Add one: holdfast app add FILE")
				return nil
			}
			t := Table{Head: []string{"APP", "RUNNING", "CPUS", "MEM", "VOLUMES", "STATUS"}}
			for _, a := range apps {
				var volumes []string
				for _, v := range a.Volumes {
					volumes = append(volumes, dash(v.Name))
				}
				t.Add(a.ID, fmt.Sprintf("%d/%d", a.Running, a.Instances), number(a.CPUs), number(a.MemMB), Join(volumes), a.Status)
			}
			t.Print(c.Out)
			return nil
		},
	}
}

func appShow(c *Console) *cobra.Command {
	var definition bool
	cmd := &cobra.Command{
		Use: "show APP", Short: "Show one app and its instances", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, id := c.Client(), absoluteID(args[0])
			if definition {
				def, err := api.AppDefinition(cmd.Context(), id)
				if err == nil {
					c.Encode(c.Out, def)
				}
				return err
			}
			a, err := api.App(cmd.Context(), id)
			if err != nil {
				return err
			}
			instances, err := api.Instances(cmd.Context(), id)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, map[string]any{"app": a, "instances": nonNil(instances)})
				return nil
			}
			fmt.Fprintf(c.Out, "%s  %d/%d running  version %s\n%s\n", a.ID, a.Running, a.Instances, a.Version, a.Status)
			if f := a.LastFailure; f != nil {
				fmt.Fprintf(c.Out, "last failure: %s %s on %s %s ago: %s\n", f.Task, f.State, f.Host, ago(f.At), f.Message)
			}
			fmt.Fprintln(c.Out)
			PrintInstances(c.Out, instances)
			return nil
		},
	}
	cmd.Flags().BoolVar(&definition, "definition", false, "print the app's JSON as Marathon would")
	return cmd
}

func appScale(c *Console) *cobra.Command {
	var force bool
	var w waiter
	cmd := &cobra.Command{
		Use: "scale APP INSTANCES", Short: "Change the number of instances; volumes are kept when it falls", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return Usage(fmt.Sprintf("%q is not a number of instances", args[1]))
			}
			id := absoluteID(args[0])
			r, err := c.Client().Scale(cmd.Context(), id, n, force)
			if err != nil {
				return err
			}
			return c.accepted(cmd, r, id, "scale", &w)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a deployment that is in the way")
	w.flags(cmd)
	return cmd
}

func appRestart(c *Console) *cobra.Command {
	var force bool
	var w waiter
	cmd := &cobra.Command{
		Use: "restart APP", Short: "Restart every instance, under the app's upgrade strategy", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := absoluteID(args[0])
			r, err := c.Client().Restart(cmd.Context(), id, force)
			if err != nil {
				return err
			}
			return c.accepted(cmd, r, id, "restart", &w)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a deployment that is in the way")
	w.flags(cmd)
	return cmd
}

func appRemove(c *Console) *cobra.Command {
	var o client.RemoveOptions
	w := waiter{removal: true}
	cmd := &cobra.Command{
		Use: "remove APP", Aliases: []string{"rm"}, Short: "Stop and remove an app; its volumes stay unless --wipe", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := absoluteID(args[0])
			r, err := c.Client().Remove(cmd.Context(), id, o)
			if err != nil {
				return err
			}
			return c.accepted(cmd, r, id, "remove", &w)
		},
	}
	cmd.Flags().BoolVar(&o.Force, "force", false, "replace a deployment that is in the way")
	cmd.Flags().BoolVar(&o.Wipe, "wipe", false, "delete the app's volumes and their data too")
	w.flags(cmd)
	return cmd
}

// accepted reports a command that the framework took, and waits for its end when asked to.
func (c *Console) accepted(cmd *cobra.Command, r *client.Result, id, verb string, w *waiter) error {
	c.Warn(r)
	if !w.wait {
		if c.JSON() {
			c.Encode(c.Out, r)
			return nil
		}
		fmt.Fprintf(c.Out, "%s %s: accepted, deployment %s\n  follow it: holdfast app show %s\n", verb, id, dash(r.Deployment), id)
		return nil
	}
	if err := w.until(cmd.Context(), c, r.Deployment, id); err != nil {
		return err
	}
	if c.JSON() {
		c.Encode(c.Out, r)
	}
	return nil
}

// readFile reads a file, or standard input for "-".
func (c *Console) readFile(name string) ([]byte, error) {
	r := c.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fault.Wrap(fault.NotFound, err, "read app")
		}
		defer f.Close()
		r = f
	}
	body, err := io.ReadAll(io.LimitReader(r, maxAppFile+1))
	switch {
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, err, "read app %s", name)
	case len(body) > maxAppFile:
		return nil, fault.New(fault.Invalid, "app %s is larger than %d MiB", name, maxAppFile>>20)
	case !json.Valid(body):
		return nil, fault.New(fault.Invalid, "app %s is not JSON: %s", name, jsonError(body))
	}
	return body, nil
}

// jsonError tells where JSON goes wrong, by line.
func jsonError(body []byte) string {
	var v any
	err := json.Unmarshal(body, &v)
	if s, ok := err.(*json.SyntaxError); ok {
		return fmt.Sprintf("line %d: %v", 1+strings.Count(string(body[:min(int(s.Offset), len(body))]), "\n"), err)
	}
	return fmt.Sprint(err)
}

// AppID reads the absolute id of an app's JSON, "" when there is none.
func AppID(body []byte) string {
	var head struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(body, &head) != nil || head.ID == "" {
		return ""
	}
	return absoluteID(head.ID)
}

func absoluteID(id string) string { return "/" + strings.Trim(id, "/") }

// number is an amount of cpus or MiB, which are counted in thousandths.
func number(f float64) string { return strconv.FormatFloat(math.Round(f*1000)/1000, 'f', -1, 64) }

// nonNil makes an empty list [] in JSON, not null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
