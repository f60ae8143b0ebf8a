package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/csiplugin"
)

// csiPluginCommand is `holdfast csi-plugin`: the pool driver for whoever speaks CSI.
func csiPluginCommand() *cobra.Command {
	var o csiplugin.Options
	var endpoint string
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
	fl.StringVar(&o.Scope, "scope", "", "cluster if all nodes see the directory, node if not (default: by its file system)")
	fl.BoolVar(&debug, "debug", false, "log every call")
	return cmd
}
