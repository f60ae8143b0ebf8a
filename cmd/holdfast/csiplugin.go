package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/csiplugin"
)

// csiPluginCommand is `holdfast csi-plugin`: the pool driver for whoever speaks CSI.
func csiPluginCommand() *cobra.Command {
	var o csiplugin.Options
	var endpoint string
	var size string
	var debug bool
	cmd := &cobra.Command{
		Use:   "csi-plugin",
		Short: "Serve the pool driver as a CSI v1 plugin on a unix socket",
		Long: "Slices a directory into volumes, as the isolator's --pool does, and serves them by the Container Storage Interface: identity,\n" +
			"controller and node services on one unix socket. It runs as root, since it mounts.",
		Example: "  holdfast csi-plugin --endpoint unix:///run/holdfast/csi.sock --pool /srv/pool --node-id $(hostname)",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if endpoint == "" || o.Pool == "" || o.NodeID == "" {
				return console.Usage("--endpoint, --pool and --node-id are needed")
			}
			abs, err := filepath.Abs(o.Pool)
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "--pool")
			}
			if size != "" {
				if o.Size, err = volume.ParseSize(size); err != nil {
					return console.Usage("--size: " + err.Error())
				}
			}
			if o.Mounts, err = filepath.Abs(o.Mounts); err != nil {
				return fault.Wrap(fault.Invalid, err, "--mounts")
			}
			log, err := isolatorLog(debug)
			if err != nil {
				return err
			}
			o.Pool, o.Version, o.Log = abs, version, log
			p, err := csiplugin.New(o)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return p.Serve(ctx, endpoint)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&endpoint, "endpoint", "", "where to listen, unix:///path.sock")
	fl.StringVar(&o.Pool, "pool", "", "directory to slice into volumes")
	fl.StringVar(&o.NodeID, "node-id", "", "id of this node in CSI's sense")
	fl.StringVar(&o.Backend, "backend", "", "dir, loop or btrfs, as in the isolator's --pool; settled when the pool is made (default: what it has, dir for a new one)")
	fl.StringVar(&o.FS, "fs", "", "file system of a loop pool's volumes, ext4 or xfs")
	fl.StringVar(&size, "size", "", "size of volumes that ask for none; loop refuses those otherwise")
	fl.BoolVar(&o.FullCopies, "full-copies", false, "let snapshots and clones of a loop pool be full copies where its file system cannot share blocks")
	fl.StringVar(&o.Mounts, "mounts", "/run/holdfast/csi-plugin", "where loop and btrfs volumes are mounted, to be bound from there")
	fl.StringVar(&o.Scope, "scope", "", "cluster if all nodes see the directory, node if not (default: by its file system)")
	fl.BoolVar(&debug, "debug", false, "log every call")
	return cmd
}
