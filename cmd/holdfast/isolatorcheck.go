package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/dockerplugin"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
	"github.com/holdfast-io/holdfast/isolator/nodecheck"
)

// marker tells dvdcli that an isolator is installed on this node, also while it does not run: dvdcli's MarkerFile.
const marker = "/var/lib/holdfast/installed"

// isolatorCheckCommand is `holdfast isolator check`.
func isolatorCheckCommand() *cobra.Command {
	var o nodecheck.Options
	cmd := &cobra.Command{
		Use: "check", Short: "Say what is wrong on this node and how to mend it", Args: cobra.NoArgs,
		Long: "Looks at the isolator, its lease, watchdog and drivers, at mounts, plugins, clock and boot id, and at what the Mesos agent and\n" +
			"Docker beside it need. It changes nothing. The exit code is 0 when nothing failed (warnings do not count), 1 when something did.\n" +
			"Run it as root: another user may not look at the agent's environment.",
	}
	socket, _ := client.Socket()
	fl := cmd.Flags()
	fl.StringVar(&o.Socket, "socket", socket, "the isolator's socket (HOLDFAST_ISOLATOR)")
	fl.StringVar(&o.DockerSocket, "docker-socket", dockerplugin.DefaultSocket, "the isolator's socket towards Docker; empty: not looked at")
	fl.StringArrayVar(&o.PluginDirs, "plugin-dir", docker.DefaultDirs().Sockets, "directory with sockets of Docker volume plugins (repeatable)")
	fl.StringArrayVar(&o.Drivers, "driver", nil, "volume driver that this node must have (repeatable)")
	fl.StringVar(&o.AgentURL, "agent-url", "", "endpoint of the Mesos agent (default: what the isolator goes by)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Path, o.Marker = os.Getenv("PATH"), marker
		found := nodecheck.Run(cmd.Context(), o)
		if f := cmd.Flag("output"); f != nil && f.Value.String() == "json" {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			if err := enc.Encode(found); err != nil {
				return fault.Wrap(fault.Unavailable, err, "print the findings")
			}
		} else {
			printFindings(cmd.OutOrStdout(), found)
		}
		failed := 0
		for _, f := range found {
			if f.Result == nodecheck.Failed {
				failed++
			}
		}
		if failed > 0 {
			return fault.New(fault.Internal, "%d of %d checks failed", failed, len(found))
		}
		return nil
	}
	return cmd
}

// printFindings prints a table, and below it what to do.
func printFindings(out io.Writer, found []nodecheck.Finding) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tRESULT\tFOUND")
	for _, f := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Check, f.Result, f.Found)
	}
	_ = w.Flush()
	for _, f := range found {
		if f.Mend != "" {
			fmt.Fprintf(out, "\n%s (%s): %s\n  %s\n", f.Check, f.Result, f.Found, f.Mend)
		}
	}
}
