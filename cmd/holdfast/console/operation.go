package console

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// The verbs of operations on volumes. Each begins an operation, shows how far it is and prints what came of it; with --no-wait it prints
// the operation's id.

// operating is what those verbs share.
type operating struct {
	noWait bool
	limit  time.Duration
}

func (o *operating) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "print the operation's id and do not wait for its end")
	cmd.Flags().DurationVar(&o.limit, "timeout", time.Hour, "give up waiting after this (exit code 6; the operation goes on)")
	return cmd
}

// finish waits for the end of an operation that was begun and prints what came of it.
func (o *operating) finish(ctx context.Context, c *Console, op *client.Operation, err error, say func(*client.Operation) string) error {
	if err != nil {
		return err
	}
	if !o.noWait {
		if op, err = o.follow(ctx, c, op); err != nil {
			return err
		}
	}
	switch {
	case c.JSON():
		c.Encode(c.Out, op)
	case o.noWait && !op.Over():
		fmt.Fprintf(c.Out, "%s: operation %s; to follow it: holdfast operation show %s\n", op.Kind, op.ID, op.ID)
	default:
		fmt.Fprintln(c.Out, say(op))
	}
	return op.Err()
}

func (o *operating) follow(ctx context.Context, c *Console, op *client.Operation) (*client.Operation, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	p := progress{out: c.Err}
	defer p.end()
	for !op.Over() {
		p.show(operationLine(op))
		next, err := c.Client().Operation(ctx, op.ID, 2*time.Second)
		switch {
		case caller.Err() != nil:
			return op, fault.New(fault.Unknown, "interrupted; the %s goes on: holdfast operation show %s, or cancel", op.Kind, op.ID)
		case ctx.Err() != nil:
			return op, fault.New(fault.Unknown, "%s is still going on after %v; to follow it: holdfast operation show %s", op.Kind, o.limit, op.ID)
		case err != nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown):
			return op, err
		case err != nil: // the framework is away for a moment
			time.Sleep(500 * time.Millisecond)
		default:
			op = next
		}
	}
	return op, op.Err()
}

// operationLine says how far one is.
func operationLine(o *client.Operation) string {
	parts := []string{o.Kind + " " + o.Phase}
	if o.Hostname != "" {
		parts = append(parts, "on "+o.Hostname)
	}
	if o.Doing != "" {
		parts = append(parts, o.Doing)
	}
	if o.TotalBytes > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s (%d %%)", volume.Bytes(o.DoneBytes), volume.Bytes(o.TotalBytes), 100*o.DoneBytes/o.TotalBytes))
	}
	if o.Because != "" {
		parts = append(parts, o.Because)
	}
	return strings.Join(parts, ", ")
}

func volumeSnapshot(c *Console) *cobra.Command {
	var o operating
	var name string
	var remove bool
	cmd := &cobra.Command{
		Use: "snapshot VOLUME", Short: "Make a snapshot of a volume, also while it is in use; --remove removes one", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if remove {
				if name == "" {
					return Usage("--remove needs --name: which snapshot")
				}
				op, err := c.Client().RemoveSnapshot(cmd.Context(), args[0], name)
				return o.finish(cmd.Context(), c, op, err, func(*client.Operation) string { return "removed snapshot " + name + " of " + args[0] })
			}
			op, err := c.Client().Snapshot(cmd.Context(), args[0], name)
			return o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string {
				frozen := ""
				if op.Result != nil && op.Result.Snapshot != nil && op.Result.Snapshot.Frozen {
					frozen = " (its file system was frozen meanwhile)"
				}
				return fmt.Sprintf("snapshot %s of %s/%s%s", op.Snapshot, op.Driver, op.Name, frozen)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the snapshot (default: one with the time in it)")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove the snapshot of that name")
	return o.flags(cmd)
}

func volumeSnapshots(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "snapshots VOLUME", Short: "List the snapshots of a volume", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := c.Client().Snapshots(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"SNAPSHOT", "VOLUME", "CREATED", "SIZE", "READY"}}
			for _, s := range list {
				t.Add(s.Name, s.Driver+"/"+s.Volume, ago(s.Created), sizeText(s.SizeBytes), yes(s.Ready))
			}
			t.Print(c.Out)
			return nil
		},
	}
}

func sizeText(n int64) string {
	if n <= 0 {
		return "-"
	}
	return volume.Bytes(n).String()
}

func volumeClone(c *Console) *cobra.Command {
	var o operating
	var r client.CloneRequest
	cmd := &cobra.Command{
		Use: "clone VOLUME NAME", Short: "Make a new volume that begins as a copy of another, or of its snapshot", Args: cobra.ExactArgs(2),
		Long: "Make a new volume of the same driver that begins as a copy. It belongs to no app until one names it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[1]
			op, err := c.Client().Clone(cmd.Context(), args[0], r)
			return o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string {
				return fmt.Sprintf("cloned %s/%s to %s/%s (uid %s)", op.Driver, op.Name, op.Driver, op.Target, op.TargetUID)
			})
		},
	}
	cmd.Flags().StringVar(&r.Snapshot, "snapshot", "", "copy this snapshot instead of the volume as it is now")
	cmd.Flags().StringVar(&r.Size, "size", "", "size of the new volume (default: that of the old one)")
	return o.flags(cmd)
}

func volumeResize(c *Console) *cobra.Command {
	var o operating
	cmd := &cobra.Command{
		Use: "resize VOLUME SIZE", Short: "Make a volume larger, also while it is in use", Args: cobra.ExactArgs(2),
		Long: "Make a volume larger: SIZE is the new size, e.g. 20 (GiB) or 500MiB. A volume is never made smaller.",
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := c.Client().Resize(cmd.Context(), args[0], args[1])
			return o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string {
				text := fmt.Sprintf("%s/%s", op.Driver, op.Name)
				if op.Result == nil || op.Result.Growth == nil {
					return text + " was resized"
				}
				g := op.Result.Growth
				text += " has " + volume.Bytes(g.SizeBytes).String()
				if g.PendingBytes > 0 {
					text += fmt.Sprintf("; %s at its next mount (restart the instance): %s", volume.Bytes(g.PendingBytes), g.Because)
				}
				return text
			})
		},
	}
	return o.flags(cmd)
}

func volumeUsage(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "usage VOLUME", Aliases: []string{"df"}, Short: "Say how full a volume is", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := c.Client().Usage(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, u)
				return nil
			}
			percent := "-"
			if total := u.UsedBytes + u.AvailableBytes; u.SizeBytes > 0 && total > 0 {
				percent = fmt.Sprintf("%d %%", 100*u.UsedBytes/total)
			}
			t := Table{Head: []string{"VOLUME", "SIZE", "USED", "AVAILABLE", "USE", "INODES"}}
			t.Add(args[0], sizeText(u.SizeBytes), sizeText(u.UsedBytes), sizeText(u.AvailableBytes), percent, fmt.Sprintf("%d/%d", u.InodesUsed, u.Inodes))
			t.Print(c.Out)
			return nil
		},
	}
}

func volumeCheck(c *Console) *cobra.Command {
	var o operating
	var repair bool
	cmd := &cobra.Command{
		Use: "check VOLUME", Short: "Look a volume's file system over; it must not be mounted", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := c.Client().Check(cmd.Context(), args[0], repair)
			err = o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string {
				text := fmt.Sprintf("%s/%s: %s", op.Driver, op.Name, op.Outcome)
				if op.Result != nil && op.Result.Report != "" {
					text += "\n" + strings.TrimRight(op.Result.Report, "\n")
				}
				return text
			})
			return err
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "repair what is wrong")
	return o.flags(cmd)
}

func volumeBackup(c *Console) *cobra.Command {
	var o operating
	var r client.BackupRequest
	cmd := &cobra.Command{
		Use: "backup VOLUME", Short: "Back a volume up into a repository, also while it is in use", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := c.Client().Backup(cmd.Context(), args[0], r)
			return o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string {
				if op.Result == nil || op.Result.Backup == nil {
					return "backed up " + args[0]
				}
				b := op.Result.Backup
				return fmt.Sprintf("backup %.12s of %s/%s in %s: %d files, %s, %s new%s", b.ID, op.Driver, op.Name, b.Repository, b.Files, volume.Bytes(b.TotalBytes),
					volume.Bytes(b.AddedBytes), mark(b.Verified, ", verified"))
			})
		},
	}
	cmd.Flags().StringVar(&r.Repository, "repository", "", "repository, as the isolators' --backup-config names it")
	cmd.Flags().StringVar(&r.Snapshot, "snapshot", "", "back this snapshot up (default: one that is made for it)")
	cmd.Flags().BoolVar(&r.Verify, "verify", false, "read everything back and check it")
	return o.flags(cmd)
}

func volumeBackups(c *Console) *cobra.Command {
	var o operating
	var repository, remove string
	cmd := &cobra.Command{
		Use: "backups [DRIVER/NAME]", Short: "List backups, of one volume (also one that is gone) or all", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if remove != "" {
				if repository == "" {
					return Usage("--remove needs --repository")
				}
				op, err := c.Client().RemoveBackup(cmd.Context(), repository, remove)
				return o.finish(cmd.Context(), c, op, err, func(*client.Operation) string { return "removed backup " + remove })
			}
			list, err := c.Client().Backups(cmd.Context(), repository, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"BACKUP", "REPOSITORY", "VOLUME", "TIME", "VOLUME SIZE", "SNAPSHOT"}}
			for _, b := range list {
				t.Add(fmt.Sprintf("%.12s", b.ID), b.Repository, b.Driver+"/"+b.Volume, b.Time.UTC().Format(time.RFC3339), sizeText(b.VolumeSize), dash(b.Snapshot))
			}
			t.Print(c.Out)
			return nil
		},
	}
	cmd.Flags().StringVar(&repository, "repository", "", "only those in this repository")
	cmd.Flags().StringVar(&remove, "remove", "", "remove the backup with this id")
	return o.flags(cmd)
}

func volumeRestore(c *Console) *cobra.Command {
	var o operating
	var r client.RestoreRequest
	cmd := &cobra.Command{
		Use: "restore DRIVER/NAME", Short: "Make a new volume from a backup", Args: cobra.ExactArgs(1),
		Long: "Make a new volume DRIVER/NAME from a backup: --backup ID, or the latest of the volume --from (default: of that very name).\n" +
			"It belongs to no app until one names it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cut := strings.LastIndexByte(args[0], '/')
			if cut <= 0 {
				return Usage(fmt.Sprintf("%q is not DRIVER/NAME", args[0]))
			}
			r.Driver, r.Name = args[0][:cut], args[0][cut+1:]
			if r.Backup == "latest" && r.From == "" {
				r.From = args[0]
			}
			op, err := c.Client().Restore(cmd.Context(), r)
			return o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string {
				return fmt.Sprintf("restored %s/%s (uid %s)", op.Driver, op.Target, op.TargetUID)
			})
		},
	}
	cmd.Flags().StringVar(&r.Repository, "repository", "", "repository, as the isolators' --backup-config names it")
	cmd.Flags().StringVar(&r.Backup, "backup", "latest", "id of the backup, or latest")
	cmd.Flags().StringVar(&r.From, "from", "", "DRIVER/NAME of the volume whose latest backup it is")
	cmd.Flags().StringVar(&r.Size, "size", "", "size of the new volume (default: that of the old one)")
	cmd.Flags().StringVar(&r.User, "user", "", "owner of the new volume's root")
	cmd.Flags().BoolVar(&r.Verify, "verify", false, "read everything once more and compare")
	return o.flags(cmd)
}

func volumeBin(c *Console) *cobra.Command {
	var driver string
	cmd := &cobra.Command{
		Use: "bin", Short: "List removed volumes that can come back", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.Client().Bin(cmd.Context(), driver)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"VOLUME", "REMOVED", "KEPT UNTIL", "SIZE", "UID"}}
			for _, v := range list {
				until := "-"
				if !v.Until.IsZero() {
					until = v.Until.UTC().Format(time.RFC3339)
				}
				t.Add(v.Driver+"/"+v.Name, ago(v.Removed), until, sizeText(v.SizeBytes), v.UID)
			}
			t.Print(c.Out)
			return nil
		},
	}
	cmd.Flags().StringVar(&driver, "driver", "", "only those of this driver")
	return cmd
}

func volumeUndelete(c *Console) *cobra.Command {
	var o operating
	var r client.BinRequest
	var purge bool
	cmd := &cobra.Command{
		Use: "undelete DRIVER/NAME", Short: "Take a removed volume out of the bin; --purge deletes it for good", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cut := strings.LastIndexByte(args[0], '/')
			if cut <= 0 {
				return Usage(fmt.Sprintf("%q is not DRIVER/NAME; holdfast volume bin lists what is there", args[0]))
			}
			r.Driver, r.Name = args[0][:cut], args[0][cut+1:]
			if purge {
				op, err := c.Client().Purge(cmd.Context(), r)
				return o.finish(cmd.Context(), c, op, err, func(*client.Operation) string { return "deleted " + args[0] + " for good" })
			}
			op, err := c.Client().Undelete(cmd.Context(), r)
			return o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string {
				return fmt.Sprintf("undeleted %s/%s (uid %s now)", op.Driver, op.Target, op.TargetUID)
			})
		},
	}
	cmd.Flags().StringVar(&r.UID, "uid", "", "which one, where several have had that name")
	cmd.Flags().BoolVar(&purge, "purge", false, "delete it for good instead")
	return o.flags(cmd)
}

func operationCommand(c *Console) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the operations on volumes under way and of the last day", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.Client().Operations(cmd.Context())
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"OPERATION", "KIND", "VOLUME", "PHASE", "NODE", "SINCE", "WHAT"}}
			for _, o := range list {
				what := o.Outcome
				if o.Error != "" {
					what = o.Error
				} else if !o.Over() {
					what = operationLine(&o)
				}
				t.Add(o.ID, o.Kind, strings.TrimSuffix(o.Driver+"/"+o.Name, "/")+mark(o.Target != "" && o.Target != o.Name, " -> "+o.Target), o.Phase, dash(o.Hostname), ago(o.CreatedAt), what)
			}
			t.Print(c.Out)
			return nil
		},
	}
	var o operating
	show := &cobra.Command{
		Use: "show OPERATION", Short: "Follow an operation to its end", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := c.Client().Operation(cmd.Context(), args[0], 0)
			return o.finish(cmd.Context(), c, op, err, func(op *client.Operation) string { return fmt.Sprintf("%s: %s", operationLine(op), dash(op.Outcome)) })
		},
	}
	cancel := &cobra.Command{
		Use: "cancel OPERATION", Short: "End an operation early; what it had made is undone", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := c.Client().CancelOperation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, op)
			} else {
				fmt.Fprintf(c.Out, "%s %s: %s\n", op.Kind, op.ID, op.Phase)
			}
			return nil
		},
	}
	return Verbs("operation", "Operations on volumes: list, show, cancel", list, o.flags(show), cancel)
}
