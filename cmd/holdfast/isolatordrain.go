package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/isolator/client"
)

// isolatorDrainCommand is `holdfast isolator drain`.
func isolatorDrainCommand() *cobra.Command {
	var r client.DrainRequest
	socket, _ := client.Socket()
	wait := 5 * time.Minute
	cmd := &cobra.Command{
		Use: "drain", Short: "Take no more mounts on this node and give back what is mounted", Args: cobra.NoArgs,
		Long: "Before an isolator is stopped for longer than its lease lasts: what nobody uses is unmounted and its claim given back, and what\n" +
			"tasks still use is waited for, or stopped with --stop-tasks. The node takes no mounts until --resume, or until the isolator is\n" +
			"started again. A mere restart needs none of this: tasks run on.",
	}
	fl := cmd.Flags()
	fl.StringVar(&socket, "socket", socket, "the isolator's socket (HOLDFAST_ISOLATOR)")
	fl.BoolVar(&r.StopTasks, "stop-tasks", false, "stop the tasks that use volumes instead of waiting for them")
	fl.BoolVar(&r.Resume, "resume", false, "take mounts again")
	fl.DurationVar(&wait, "wait", wait, "how long to wait for tasks")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r.WaitSeconds = max(1, int(wait.Seconds()))
		ctx, cancel := context.WithTimeout(cmd.Context(), wait+10*time.Second)
		defer cancel()
		if err := client.New(socket).Drain(ctx, r); err != nil {
			return err
		}
		if !r.Resume {
			fmt.Fprintln(cmd.ErrOrStderr(), "nothing is mounted on this node, and it takes no mounts")
		}
		return nil
	}
	return cmd
}
