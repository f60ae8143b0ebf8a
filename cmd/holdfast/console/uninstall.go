package console

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// uninstall is `holdfast uninstall`: it takes down what the framework has on the cluster, as chosen, and then the framework itself. Every step may be repeated:
// run again, it plans what is left.
type uninstall struct {
	c *Console

	volumes, reservations string
	skip                  []string
	plan, yes             bool
	limit                 time.Duration
}

func uninstallCommand(c *Console) *cobra.Command {
	u := &uninstall{c: c}
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Stop every app, give back what is reserved, and end the framework at the master", Args: cobra.NoArgs,
		Long: "Shows its plan, asks, and then stops every app, gives reservations back, deletes volumes if that was chosen, and ends the framework at the master (TEARDOWN).\n" +
			"Volumes are kept unless --volumes delete says otherwise. The framework's state, claims and leases stay in their store, so that kept volumes can be used again.\n\n" +
			"Agents that do not come back are named by --skip-agent: what they hold is left behind, and listed.",
		Example: "  holdfast uninstall --plan\n  holdfast uninstall --reservations release --skip-agent agent7",
		RunE:    func(cmd *cobra.Command, _ []string) error { return u.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&u.volumes, "volumes", "keep", "keep or delete: external volumes and their data")
	f.StringVar(&u.reservations, "reservations", "keep", "keep or release: what is reserved for instances on agents, with the local volumes there and their data")
	f.StringSliceVar(&u.skip, "skip-agent", nil, "host name of an agent that does not come back: do not wait for it (repeatable)")
	f.BoolVar(&u.plan, "plan", false, "show the plan only")
	f.BoolVar(&u.yes, "yes", false, "do not ask")
	f.DurationVar(&u.limit, "timeout", 15*time.Minute, "give up waiting after this (exit code 6); run it again to go on")
	return cmd
}

// inventory is what there is to take down.
type inventory struct {
	Apps         []client.App         `json:"apps"`
	Instances    []client.Instance    `json:"-"`
	Volumes      []client.Volume      `json:"volumes"`
	Reservations []client.Reservation `json:"reservations"`
	// Left are things on agents that are skipped.
	Left []string `json:"left"`
}

func (u *uninstall) run(ctx context.Context) error {
	switch {
	case u.volumes != "keep" && u.volumes != "delete":
		return Usage(fmt.Sprintf("--volumes is %q: keep and delete are known", u.volumes))
	case u.reservations != "keep" && u.reservations != "release":
		return Usage(fmt.Sprintf("--reservations is %q: keep and release are known", u.reservations))
	}
	ctx, cancel := context.WithTimeout(ctx, u.limit)
	defer cancel()
	info, err := u.c.Client().Info(ctx)
	if err != nil {
		return err
	}
	inv, err := u.look(ctx)
	if err != nil {
		return err
	}
	if u.c.JSON() && u.plan {
		u.c.Encode(u.c.Out, inv)
		return nil
	}
	u.show(info, inv)
	if u.plan {
		return nil
	}
	if err := u.agreed(info); err != nil {
		return err
	}
	return u.takeDown(ctx, inv)
}

func (u *uninstall) skipped(host string) bool { return slices.Contains(u.skip, host) }

func (u *uninstall) look(ctx context.Context) (inv inventory, err error) {
	api := u.c.Client()
	if inv.Apps, err = api.Apps(ctx); err != nil {
		return inv, err
	}
	if inv.Instances, err = api.Instances(ctx, ""); err != nil {
		return inv, err
	}
	if inv.Volumes, err = api.Volumes(ctx, ""); err != nil {
		return inv, err
	}
	if inv.Reservations, err = api.Reservations(ctx, ""); err != nil {
		return inv, err
	}
	inv.Left = []string{}
	for _, i := range inv.Instances {
		if i.Hostname != "" && u.skipped(i.Hostname) {
			inv.Left = append(inv.Left, "instance "+i.ID+" on "+i.Hostname)
		}
	}
	for _, r := range inv.Reservations {
		if u.skipped(r.Hostname) {
			inv.Left = append(inv.Left, "reservation "+r.ID+" of "+r.Instance+" on "+r.Hostname)
		}
	}
	return inv, nil
}

func (u *uninstall) show(info *client.Info, inv inventory) {
	w := u.c.Err
	fmt.Fprintf(w, "framework %s (%s)\n", info.Name, info.FrameworkID)
	t := Table{Head: []string{"WHAT", "HOW MANY", "WHAT BECOMES OF IT"}}
	t.Add("apps", fmt.Sprint(len(inv.Apps)), "stopped and removed")
	t.Add("instances", fmt.Sprint(len(inv.Instances)), "stopped")
	fate := "kept, with their data"
	if u.volumes == "delete" {
		fate = "DELETED, WITH THEIR DATA"
	}
	t.Add("external volumes", fmt.Sprint(len(inv.Volumes)), fate)
	fate = "kept: nobody else can use them"
	if u.reservations == "release" {
		fate = "given back; LOCAL VOLUMES ON THEM ARE DELETED, WITH THEIR DATA"
	}
	t.Add("reservations", fmt.Sprint(len(inv.Reservations)), fate)
	perAgent := u.perAgent(inv.Reservations)
	for _, host := range slices.Sorted(maps.Keys(perAgent)) {
		t.Add("  on "+host, fmt.Sprint(perAgent[host]), mark(u.skipped(host), "left behind: the agent is skipped"))
	}
	t.Add("framework", "1", "ended at the master; its state, claims and leases stay in their store")
	t.Print(w)
	for _, l := range inv.Left {
		fmt.Fprintf(w, "left behind: %s\n", l)
	}
}

func (u *uninstall) perAgent(list []client.Reservation) map[string]int {
	out := map[string]int{}
	for _, r := range list {
		out[r.Hostname]++
	}
	return out
}

func (u *uninstall) agreed(info *client.Info) error {
	if u.yes {
		return nil
	}
	return u.c.retype("framework's name", info.Name, "to go on")
}

// takeDown goes step by step; a step that finds nothing to do is done.
func (u *uninstall) takeDown(ctx context.Context, inv inventory) error {
	api := u.c.Client()
	for _, a := range inv.Apps {
		_, err := api.Remove(ctx, a.ID, client.RemoveOptions{Force: true, Wipe: u.volumes == "delete"})
		if err != nil && !fault.Is(err, fault.NotFound) {
			return fault.Op(err, "remove app %s", a.ID)
		}
	}
	if err := u.wait(ctx, "apps stop", func(inv inventory) []string {
		var left []string
		for _, i := range inv.Instances {
			if !u.skipped(i.Hostname) {
				left = append(left, i.ID)
			}
		}
		return left
	}); err != nil {
		return err
	}
	if u.volumes == "delete" {
		if err := u.deleteVolumes(ctx); err != nil {
			return err
		}
	}
	if u.reservations == "release" {
		if err := u.release(ctx); err != nil {
			return err
		}
	}
	// What is left is what was chosen to be: kept reservations, and what skipped agents hold.
	if _, err := api.Teardown(ctx, whoAmI(), true); err != nil {
		return err
	}
	return u.ended(ctx)
}

// deleteVolumes removes the volumes of apps that were removed earlier, which a removal with wipe does not reach.
func (u *uninstall) deleteVolumes(ctx context.Context) error {
	api := u.c.Client()
	inv, err := u.look(ctx)
	if err != nil {
		return err
	}
	for _, v := range inv.Volumes {
		if _, err := api.RemoveVolume(ctx, v.UID); err != nil && !fault.Is(err, fault.NotFound) {
			fmt.Fprintf(u.c.Err, "volume %s/%s is left: %v\n", v.Driver, v.Name, err)
		}
	}
	return u.wait(ctx, "volumes are deleted", func(inv inventory) (left []string) {
		for _, v := range inv.Volumes {
			if v.Claim == nil || !u.skipped(v.Claim.Hostname) {
				left = append(left, v.Driver+"/"+v.Name)
			}
		}
		return left
	})
}

func (u *uninstall) release(ctx context.Context) error {
	api := u.c.Client()
	inv, err := u.look(ctx)
	if err != nil {
		return err
	}
	for _, r := range inv.Reservations {
		if u.skipped(r.Hostname) {
			continue
		}
		if _, err := api.ReleaseReservation(ctx, r.ID, false); err != nil && !fault.Is(err, fault.NotFound) {
			return fault.Op(err, "release reservation %s of %s on %s", r.ID, r.Instance, r.Hostname)
		}
	}
	return u.wait(ctx, "reservations are given back", func(inv inventory) (left []string) {
		for _, r := range inv.Reservations {
			if !u.skipped(r.Hostname) {
				left = append(left, r.Instance+" on "+r.Hostname)
			}
		}
		return left
	})
}

// wait shows how much is left until nothing is. An API that is away for a moment is waited for.
func (u *uninstall) wait(ctx context.Context, what string, left func(inventory) []string) error {
	p := progress{out: u.c.Err}
	defer p.end()
	for {
		inv, err := u.look(ctx)
		switch {
		case err == nil:
			rest := left(inv)
			if len(rest) == 0 {
				p.show(what + ": done")
				return nil
			}
			p.show(fmt.Sprintf("%s: %d left (%s)", what, len(rest), strings.Join(rest[:min(3, len(rest))], ", ")))
		case ctx.Err() == nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown):
			return err
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unknown, "%s: %s. holdfast explain says why; agents that do not come back are named by --skip-agent. Run it again to go on", what, p.last)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// ended waits for the master's confirmation.
func (u *uninstall) ended(ctx context.Context) error {
	for {
		info, err := u.c.Client().Info(ctx)
		if err == nil && info.Stopped != "" {
			if u.c.JSON() {
				u.c.Encode(u.c.Out, map[string]string{"stopped": info.Stopped})
			} else {
				fmt.Fprintf(u.c.Out, "the framework is over: %s\n", info.Stopped)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unknown, "the master has not confirmed the end yet; the framework asks for it again whenever it is connected")
		case <-time.After(300 * time.Millisecond):
		}
	}
}
