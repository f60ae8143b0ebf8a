package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func devAgentCommand(c *console.Console, dir *string) *cobra.Command {
	act := func(verb, short, long string) *cobra.Command {
		var o dev.Order
		cmd := &cobra.Command{
			Use: verb + " AGENT", Short: short, Long: long, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if verb == "partition" && !o.FromMaster && !o.FromAuthority {
					o = dev.Order{FromMaster: true, FromAuthority: true}
				}
				if strings.ContainsAny(args[0], "/?#%") {
					return fault.New(fault.NotFound, "there is no agent %q (holdfast dev agent list)", args[0])
				}
				ctl, err := dev.Connect(*dir)
				if err != nil {
					return err
				}
				s, err := ctl.Agent(cmd.Context(), args[0], verb, o)
				if err != nil {
					return err
				}
				if c.JSON() {
					c.Encode(c.Out, s)
				} else {
					fmt.Fprintf(c.Out, "%s %s: now %s%s\n", verb, s.Name, s.State, cutNote(s.Cut))
				}
				return nil
			},
		}
		if verb == "partition" {
			cmd.Flags().BoolVar(&o.FromMaster, "from-master", false, "cut the agent from the master only")
			cmd.Flags().BoolVar(&o.FromAuthority, "from-authority", false, "cut the node helper from the lease authority only")
		}
		return cmd
	}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the agents and what runs on them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := devStatus(c, cmd, *dir)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, s.Nodes)
				return nil
			}
			printNodes(c, s)
			return nil
		},
	}
	return console.Verbs("agent", "Agents of the cluster: list, stop, kill, partition, heal, crash-helper, start", list,
		act("stop", "End the agent process; tasks and node helper go on", "As kill -9 of a Mesos agent: its tasks go on and are taken up again by `start`."),
		act("kill", "Lose the machine: everything on it dies at once", "Tasks, node helper and watchdog die by SIGKILL, its mounts are gone, and neither master nor authority can reach it. `start` boots it anew."),
		act("partition", "Pull its network cables; what runs there goes on", "Cuts the agent from the master and its node helper from the lease authority, or one of them."),
		act("heal", "Put the cables back", ""),
		act("crash-helper", "kill -9 the node helper; it is started again at once", "The helper's watchdog and the tasks go on. The helper recovers by its journal."),
		act("start", "Boot a killed agent, or start a stopped one", ""))
}

func devFrameworkCommand(c *console.Console, dir *string) *cobra.Command {
	act := func(verb, short string) *cobra.Command {
		return &cobra.Command{Use: verb, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			ctl, err := dev.Connect(*dir)
			if err != nil {
				return err
			}
			s, err := ctl.Framework(cmd.Context(), verb)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, s)
			} else {
				fmt.Fprintf(c.Out, "framework killed (kill -9); it is started again %s\n", map[string]string{"kill": "after a moment, as after any crash", "restart": "at once"}[verb])
			}
			return nil
		}}
	}
	return console.Verbs("framework", "The framework process: kill, restart",
		act("kill", "kill -9 the framework; its supervisor restarts it after a moment"), act("restart", "kill -9 the framework and start it at once"))
}

func devStatusCommand(c *console.Console, dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := devStatus(c, cmd, *dir)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, s)
				return nil
			}
			fmt.Fprintf(c.Out, "supervisor pid %d, state in %s\nAPI     %s\nengine  %s\n%s, started %d times, log %s\n\n", s.PID, s.Dir, s.API, s.Master, s.Framework, s.Framework.Starts, s.Framework.Log)
			printNodes(c, s)
			return nil
		},
	}
}

func devStatus(c *console.Console, cmd *cobra.Command, dir string) (*dev.Status, error) {
	ctl, err := dev.Connect(dir)
	if err != nil {
		return nil, err
	}
	return ctl.Status(cmd.Context())
}

func printNodes(c *console.Console, s *dev.Status) {
	t := console.Table{Head: []string{"AGENT", "STATE", "CUT FROM", "HELPER", "ZONE", "RACK", "TASKS"}}
	for _, n := range s.Nodes {
		helper := "-"
		if n.Isolator != nil {
			helper = "down"
			if n.Isolator.PID != 0 {
				helper = fmt.Sprintf("pid %d", n.Isolator.PID)
			}
		}
		t.Add(n.Name, n.State, console.Join(n.Cut), helper, n.Zone, n.Rack, console.Join(n.Tasks))
	}
	t.Print(c.Out)
}

func cutNote(cut []string) string {
	if len(cut) == 0 {
		return ""
	}
	return ", cut from " + strings.Join(cut, " and ")
}
