package console

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/volume"
)

type ctxT = context.Context

func volumeCommand(c *Console) *cobra.Command {
	return Verbs("volume", "Volumes: list, show, remove, release, snapshot, clone, resize, backup, restore, undelete, check", volumeList(c), volumeShow(c), volumeRemove(c), releaseVolume(c),
		volumeSnapshot(c), volumeSnapshots(c), volumeClone(c), volumeResize(c), volumeUsage(c), volumeCheck(c),
		volumeBackup(c), volumeBackups(c), volumeRestore(c), volumeBin(c), volumeUndelete(c))
}

func volumeList(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "list [APP]", Aliases: []string{"ls"}, Short: "List volumes, of one app or of all", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) == 1 {
				app = absoluteID(args[0])
			}
			list, err := c.Client().Volumes(cmd.Context(), app)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"VOLUME", "SIZE", "PHASE", "INSTANCE", "IN USE", "CLAIM", "NODE"}}
			for _, v := range list {
				claim, node := "-", "-"
				if v.Claim != nil {
					claim, node = fmt.Sprintf("%s (%d)", v.Claim.State, v.Claim.Epoch), dash(v.Claim.Hostname)
				}
				t.Add(v.Driver+"/"+v.Name, dash(v.Size), v.Phase+fullness(v.Usage), dash(v.Instance), yes(v.InUse), claim, node)
			}
			t.Print(c.Out)
			return nil
		},
	}
}

// fullness is what a list says of a volume that is nearly full.
func fullness(u *client.VolumeUsage) string {
	if u == nil {
		return ""
	}
	return ", " + strings.ReplaceAll(u.Level, "-", " ")
}

func volumeShow(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "show VOLUME", Short: "Show one volume, by uid, driver/name or name", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := c.Client().Volume(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, v)
				return nil
			}
			fmt.Fprintf(c.Out, "%s/%s  %s  %s\n  uid %s, created %s ago%s\n  app %s, instance %s, in use: %s\n",
				v.Driver, v.Name, dash(v.Size), v.Phase, v.UID, ago(v.CreatedAt), mark(v.Adopted, ", adopted"), dash(v.App), dash(v.Instance), yes(v.InUse))
			if k := v.Claim; k != nil {
				fmt.Fprintf(c.Out, "  claim %s, epoch %d, node %s, since %s%s\n", k.State, k.Epoch, dash(k.Hostname), ago(k.Since), mark(k.Revoke, ", revoked"))
			}
			if u := v.Usage; u != nil {
				fmt.Fprintf(c.Out, "  %s: %s of %s used; to make it larger: holdfast volume resize %s/%s SIZE\n", strings.TrimPrefix(fullness(u), ", "),
					volume.Bytes(u.UsedBytes), volume.Bytes(u.UsedBytes+u.AvailableBytes), v.Driver, v.Name)
			}
			if v.Error != "" {
				fmt.Fprintf(c.Out, "  error: %s\n", v.Error)
			}
			return nil
		},
	}
}

func claimCommand(c *Console) *cobra.Command {
	return Verbs("claim", "Claims: list, show", claimShow(c), &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List who may have which volume mounted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.Client().Claims(cmd.Context())
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"VOLUME", "STATE", "EPOCH", "NODE", "SINCE", "OWNER"}}
			for _, k := range list {
				t.Add(k.Driver+"/"+k.Name, k.State+mark(k.Revoke, ", revoked")+mark(k.Tombstone, ", removed"), fmt.Sprint(k.Epoch), dash(k.Hostname), ago(k.Since), dash(k.Owner))
			}
			t.Print(c.Out)
			return nil
		},
	})
}

func claimShow(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "show VOLUME", Short: "Show who may have a volume mounted, and what is waited for", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := c.Client().Claim(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, k)
				return nil
			}
			fmt.Fprintf(c.Out, "%s/%s  %s%s%s\n  uid %s, epoch %d, for %s\n", k.Driver, k.Name, k.State, mark(k.Revoke, ", revoked"), mark(k.Tombstone, ", removed"), k.Volume, k.Epoch, ago(k.Since))
			if k.State != "free" {
				fmt.Fprintf(c.Out, "  node %s (%s), owner %s\n  policy %s%s, fence %s\n", dash(k.Hostname), dash(k.Node), dash(k.Owner), dash(k.Policy),
					mark(k.MinGrade != "", ", frees from grade "+k.MinGrade+" on"), dash(k.Fence))
			}
			if k.FreedBy != "" {
				fmt.Fprintf(c.Out, "  freed last by %s\n", k.FreedBy)
			}
			if k.WordBy != "" {
				fmt.Fprintf(c.Out, "  an operator's word %s ago: %s, because: %s\n", ago(k.WordAt), k.WordBy, k.WordWhy)
			}
			if k.Waits != "" {
				fmt.Fprintf(c.Out, "  waits: %s\n", k.Waits)
			}
			return nil
		},
	}
}

func deploymentCommand(c *Console) *cobra.Command {
	var force bool
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the deployments under way", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.Client().Deployments(cmd.Context())
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"DEPLOYMENT", "STEP", "SINCE", "APPS", "NOW"}}
			for _, d := range list {
				var now []string
				if d.Step >= 1 && d.Step <= len(d.Steps) {
					for _, a := range d.Steps[d.Step-1].Actions {
						now = append(now, a.Action+" "+a.App)
					}
				}
				t.Add(d.ID, fmt.Sprintf("%d/%d", d.Step, len(d.Steps))+mark(d.Paused, " paused"), ago(d.CreatedAt), some(d.Apps), some(now))
			}
			t.Print(c.Out)
			return nil
		},
	}
	cancel := &cobra.Command{
		Use: "cancel DEPLOYMENT", Short: "Roll a deployment back; --force leaves things as they are", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.Client().CancelDeployment(cmd.Context(), args[0], force)
			if err != nil {
				return err
			}
			c.Warn(r)
			if c.JSON() {
				c.Encode(c.Out, r)
			} else {
				fmt.Fprintf(c.Out, "cancel %s: accepted, deployment %s\n", args[0], dash(r.Deployment))
			}
			return nil
		},
	}
	cancel.Flags().BoolVar(&force, "force", false, "abandon it where it is instead of rolling back")
	return Verbs("deployment", "Deployments: list, cancel, pause, resume", list, cancel,
		deploymentHold(c, "pause", "Keep a deployment from going on; what it began goes on", (*client.Client).PauseDeployment),
		deploymentHold(c, "resume", "Let a paused deployment go on", (*client.Client).ResumeDeployment))
}

func explainCommand(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "explain ID", Short: "Say why an app, instance, volume or node is as it is", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := c.Client().Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, x)
				return nil
			}
			name := x.ID
			switch {
			case x.Node != nil:
				name = x.Node.Hostname
			case x.Volume != nil:
				name = x.Volume.Driver + "/" + x.Volume.Name
			}
			fmt.Fprintf(c.Out, "%s %s: %s\n", x.Kind, name, x.Summary)
			for _, l := range x.Lines {
				fmt.Fprintf(c.Out, "  %s\n", l)
			}
			return nil
		},
	}
}

// some names the first few of many.
func some(list []string) string {
	if len(list) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:2], ", "), len(list)-2)
	}
	return dash(strings.Join(list, ", "))
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
