package console

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func volumeRemove(c *Console) *cobra.Command {
	var o operating
	var now bool
	cmd := &cobra.Command{
		Use: "remove VOLUME", Aliases: []string{"rm"}, Short: "Delete a volume and its data; refused while it is in use", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if now {
				return removeNow(cmd.Context(), c, &o, args[0])
			}
			r, err := c.Client().RemoveVolume(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			c.Warn(r)
			if c.JSON() {
				c.Encode(c.Out, r)
			} else {
				fmt.Fprintf(c.Out, "remove %s: accepted\n", args[0])
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "for good: wait until it is removed, and delete it from its driver's bin too")
	cmd.Flags().DurationVar(&o.limit, "timeout", time.Hour, "with --now: give up waiting after this (exit code 6; the removal goes on)")
	return cmd
}

// removeNow removes a volume, and then from the bin of its driver what was removed, by its uid. Stopped in between, it leaves the volume in the bin.
func removeNow(ctx context.Context, c *Console, o *operating, id string) error {
	v, err := c.Client().Volume(ctx, id)
	if err != nil {
		return err
	}
	r, err := c.Client().RemoveVolume(ctx, v.UID)
	if err != nil {
		return err
	}
	c.Warn(r)
	limited, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if err := untilRemoved(limited, c, v); err != nil {
		return err
	}
	op, err := c.Client().Purge(ctx, client.BinRequest{Driver: v.Driver, Name: v.Name, UID: v.UID})
	binless := false
	if err == nil {
		op, err = o.follow(ctx, c, op)
		binless = fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) // nothing of it lies there; the driver has no bin
	}
	switch {
	case binless:
	case err != nil:
		return fault.Op(err, "volume %s/%s (uid %s) is removed, but it may still be in the bin", v.Driver, v.Name, v.UID)
	}
	if c.JSON() {
		c.Encode(c.Out, map[string]any{"driver": v.Driver, "name": v.Name, "uid": v.UID, "purge": op})
		return nil
	}
	fmt.Fprintf(c.Out, "removed %s/%s for good\n", v.Driver, v.Name)
	return nil
}

// untilRemoved waits until the framework knows the volume no more: its node has removed it then.
func untilRemoved(ctx context.Context, c *Console, v *client.Volume) error {
	p := progress{out: c.Err}
	defer p.end()
	for {
		now, err := c.Client().Volume(ctx, v.UID)
		switch {
		case fault.Is(err, fault.NotFound):
			return nil
		case err != nil && ctx.Err() == nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown):
			return err
		case err == nil && now.Error != "":
			p.show(fmt.Sprintf("%s/%s: %s", v.Driver, v.Name, now.Error))
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unknown, "volume %s/%s is still being removed; once it is: holdfast volume undelete %s/%s --uid %s --purge", v.Driver, v.Name, v.Driver, v.Name, v.UID)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
