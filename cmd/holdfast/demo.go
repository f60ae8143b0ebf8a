package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/cmd/holdfast/demo"
)

func demoCommand(c *console.Console) *cobra.Command {
	cfg := demo.Config{Agents: 3}
	quiet := false
	cmd := &cobra.Command{
		Use: "demo", Short: "Break a cluster in every way that must not lose data, and check that none is lost",
		Long: "Runs a cluster of its own in a temporary directory, on free ports: three instances write records with fsync; an agent is\n" +
			"killed, an instance moved, the app scaled up and down, the framework killed in between. At the end every acknowledged\n" +
			"record must be in its volume, once, in order. The exit code is not 0 if anything is off.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Out = c.Out
			if quiet {
				cfg.Out = io.Discard
			}
			return demo.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&cfg.Dir, "dir", "", "work here and keep everything; default: a temporary directory, removed when all is well")
	cmd.Flags().DurationVar(&cfg.Pause, "every", 10*time.Millisecond, "pause between two records of a writer")
	cmd.Flags().IntVar(&cfg.Acts, "acts", 0, "instead of the plot, break and mend that many things at random")
	cmd.Flags().Uint64Var(&cfg.Seed, "seed", 1, "with --acts: what chooses them")
	cmd.Flags().StringVar(&cfg.Consul, "consul", "", "program of a Consul that is run too: instances are then looked up by DNS")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "print nothing but errors")
	return cmd
}
