package console

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func failoverCommand(c *Console) *cobra.Command {
	list := &cobra.Command{
		Use: "list [APP]", Aliases: []string{"ls"}, Short: "List how lost instances came back, newest first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := c.Client().Failovers(cmd.Context(), first(args))
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"INSTANCE", "LOST", "FROM", "TO", "FREED BY", "TOOK", "STATE"}}
			for _, f := range list {
				state := f.End
				if state == "" {
					state = "goes on: " + f.Waits
				}
				t.Add(f.Instance, ago(f.LostAt)+" ago", dash(f.Hostname), dash(f.NextHostname), dash(f.FreedBy), seconds(f.Seconds), state)
			}
			t.Print(c.Out)
			return nil
		},
	}
	show := &cobra.Command{
		Use: "show INSTANCE", Short: "Show the latest failover of an instance, step by step", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := c.Client().Instance(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			list, err := c.Client().Failovers(cmd.Context(), i.App)
			if err != nil {
				return err
			}
			for _, f := range list {
				if f.Instance != i.ID {
					continue
				}
				if c.JSON() {
					c.Encode(c.Out, f)
				} else {
					PrintFailover(c, f)
				}
				return nil
			}
			return fault.New(fault.NotFound, "instance %s was never lost, as far as is remembered", i.ID)
		},
	}
	return Verbs("failover", "Failovers: list, show", list, show)
}

func first(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return ""
}

func seconds(s float64) string {
	return (time.Duration(s*1000) * time.Millisecond).Round(10 * time.Millisecond).String()
}

// PrintFailover prints a failover as a timeline: each step with the time since the loss, and since the step before.
func PrintFailover(c *Console, f client.Failover) {
	fmt.Fprintf(c.Out, "%s, run %s on %s (%s)\n", f.Instance, f.Task, dash(f.Hostname), dash(f.Why))
	freed := map[string]string{"L3": "claims free: the node fenced and gave them back", "L4": "claims free: the node's lease ran out", "L7": "claims free: an operator's word"}[f.FreedBy]
	if freed == "" {
		freed = "claims free"
	}
	t := Table{Head: []string{"AFTER", "STEP", "", "AT"}}
	before := f.LostAt
	for _, s := range []struct {
		name string
		at   time.Time
	}{{"lost", f.LostAt}, {"claims asked back", f.RevokedAt}, {"node declared dead", f.DeadAt}, {freed, f.FreeAt}, {"offer taken on " + f.NextHostname, f.OfferedAt},
		{"launched", f.LaunchedAt}, {"claimed and mounted", f.HeldAt}, {"running", f.RunningAt}, {"up", f.UpAt}, {"ended: " + f.End, f.EndAt}} {
		if s.at.IsZero() || s.at.Equal(f.UpAt) && s.name != "up" && f.End == "moved" && s.name[0] == 'e' {
			continue
		}
		t.Add(seconds(s.at.Sub(f.LostAt).Seconds()), s.name, "+"+seconds(s.at.Sub(before).Seconds()), s.at.UTC().Format("15:04:05.000"))
		before = s.at
	}
	t.Print(c.Out)
	switch {
	case f.End != "":
		fmt.Fprintf(c.Out, "%s after %s\n", f.End, seconds(f.Seconds))
	case !f.FreeBy.IsZero():
		fmt.Fprintf(c.Out, "goes on for %s; the claims are free by %s at the latest\n  %s\n", seconds(f.Seconds), f.FreeBy.UTC().Format("15:04:05"), f.Waits)
	default:
		fmt.Fprintf(c.Out, "goes on for %s: %s\n", seconds(f.Seconds), f.Waits)
	}
}
