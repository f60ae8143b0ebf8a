package console

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func reservationsCommand(c *Console) *cobra.Command {
	cmd := Verbs("reservations", "Reservations and local volumes: list, release", reservationList(c), reservationRelease(c))
	cmd.Aliases = []string{"reservation"}
	return cmd
}

func reservationList(c *Console) *cobra.Command {
	return &cobra.Command{
		Use: "list [APP]", Aliases: []string{"ls"}, Short: "List what agents keep for instances, of one app or of all", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) == 1 {
				app = absoluteID(args[0])
			}
			list, err := c.Client().Reservations(cmd.Context(), app)
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, nonNil(list))
				return nil
			}
			t := Table{Head: []string{"INSTANCE", "HOST", "STATE", "SINCE", "VOLUMES", "ID", "WHY"}}
			for _, r := range list {
				t.Add(r.Instance, r.Hostname, r.State, ago(r.Since), dash(volumeText(r.Volumes)), r.ID, dash(whyText(r)))
			}
			t.Print(c.Out)
			return nil
		},
	}
}

func volumeText(list []client.LocalVolume) string {
	var parts []string
	for _, v := range list {
		text := v.ContainerPath
		if text == "" {
			text = v.PersistenceID
		}
		if v.SizeMB > 0 {
			text += fmt.Sprintf(" (%d MB)", v.SizeMB)
		}
		if !v.Exists {
			text += " not there yet"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func whyText(r client.Reservation) string {
	text := r.Reason
	if len(r.Pending) > 0 {
		text = "waits for the end of " + strings.Join(r.Pending, ", ")
	}
	if r.Error != "" {
		text = strings.TrimPrefix(text+"; last error: "+r.Error, "; ")
	}
	for _, v := range r.Volumes {
		if v.NoResize != "" {
			text = strings.TrimPrefix(text+"; "+v.ContainerPath+" keeps its size: "+v.NoResize, "; ")
		}
	}
	return text
}

func reservationRelease(c *Console) *cobra.Command {
	var yes, forget bool
	cmd := &cobra.Command{
		Use: "release ID|INSTANCE", Short: "Destroy a reservation's local volumes and give it back", Args: cobra.ExactArgs(1),
		Long: "Shows what would be destroyed and given back; does it with --yes. A reservation that a run uses is refused: stop the instance first. " +
			"--forget drops the record of a reservation whose agent does not come back; nothing is destroyed there.",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.Client().Reservation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !yes {
				if c.JSON() {
					c.Encode(c.Out, map[string]any{"plan": releasePlan(r, forget), "reservation": r})
				} else {
					for _, line := range releasePlan(r, forget) {
						fmt.Fprintln(c.Out, line)
					}
				}
				return fault.New(fault.Invalid, "nothing was done: repeat it with --yes")
			}
			res, err := c.Client().ReleaseReservation(cmd.Context(), r.ID, forget)
			if err != nil {
				return err
			}
			c.Warn(res)
			if c.JSON() {
				c.Encode(c.Out, res)
			} else {
				fmt.Fprintf(c.Out, "release %s of %s on %s: accepted\n", r.ID, r.Instance, r.Hostname)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.Flags().BoolVar(&forget, "forget", false, "only drop the record")
	return cmd
}

// releasePlan says what a release would do.
func releasePlan(r *client.Reservation, forget bool) (lines []string) {
	lines = append(lines, fmt.Sprintf("reservation %s of instance %s on %s (%s)", r.ID, r.Instance, r.Hostname, r.State))
	if forget {
		return append(lines, "  forget the record; what is on the agent stays there, and is listed as a leftover should it be seen")
	}
	for _, v := range r.Volumes {
		if v.Exists {
			lines = append(lines, fmt.Sprintf("  DESTROY volume %s with its data", v.PersistenceID))
		}
	}
	lines = append(lines, "  UNRESERVE everything that is reserved for it")
	if !r.MissingSince.IsZero() {
		lines = append(lines, "  the agent is missing: this is done when it is seen again")
	}
	return lines
}
