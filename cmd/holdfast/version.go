package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
)

func versionCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if c.JSON() {
				c.Encode(c.Out, map[string]string{"version": version})
			} else {
				fmt.Fprintln(c.Out, "holdfast "+version)
			}
			return nil
		},
	}
}
