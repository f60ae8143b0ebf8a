package console

import (
	"fmt"

	"github.com/spf13/cobra"
)

func volumeRemove(c *Console) *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use: "remove VOLUME", Aliases: []string{"rm"}, Short: "Delete a volume and its data; refused while it is in use", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			do := c.Client().RemoveVolume
			if now {
				do = c.Client().RemoveVolumeNow
			}
			r, err := do(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			c.Warn(r)
			if c.JSON() {
				c.Encode(c.Out, r)
			} else {
				fmt.Fprintf(c.Out, "remove %s%s: accepted\n", args[0], mark(now, " for good"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "for good: past the driver's bin, which else keeps it for a while")
	return cmd
}
