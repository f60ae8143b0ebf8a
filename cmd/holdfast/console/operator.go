package console

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// word is what the verbs share that are an operator's word: they show what it is bound to and what it risks, ask, and say who and why.
type word struct {
	why, by string
	yes     bool
	renews  bool
}

func (w *word) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.why, "reason", "", "why, kept in the claim and in the log (needed)")
	oneWord(f)
	f.StringVar(&w.by, "by", "", "who says so (default: who is logged in here)")
	f.BoolVar(&w.yes, "yes", false, "do not ask: what is shown is agreed to")
	f.BoolVar(&w.renews, "although-it-renews", false, "go on although the node renews its lease, that is, although it is there")
}

// fenceNode is `holdfast node fence`.
func fenceNode(c *Console) *cobra.Command {
	w := &word{}
	cmd := &cobra.Command{Use: "fence NODE", Short: "State that a node is gone: end its lease and free all that it holds", Args: cobra.ExactArgs(1),
		Long: "States, on your word, that nothing on a node can write to its volumes any more (the machine is off, was rebooted since, or is cut off from the storage for good):\n" +
			"its lease ends, and the claims that are shown become free, so that instances start elsewhere. It changes nothing on the node itself.\n\n" +
			"NODE is a uid, or a host name that only one node has.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return w.give(cmd.Context(), c, args[0], c.Client().Fence, c.Client().SpeakFence)
		}}
	w.flags(cmd)
	return cmd
}

// releaseVolume is `holdfast volume release`.
func releaseVolume(c *Console) *cobra.Command {
	w := &word{}
	cmd := &cobra.Command{Use: "release VOLUME", Short: "State that a volume's holder cannot write any more: free its claim", Args: cobra.ExactArgs(1),
		Long: "States, on your word, that the node which holds a volume cannot write to it any more: the claim becomes free, and the instance may start elsewhere.\n" +
			"It changes nothing on the node or at the storage.\n\nVOLUME is a uid, driver/name, or a name that only one volume has.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return w.give(cmd.Context(), c, args[0], c.Client().Release, c.Client().SpeakRelease)
		}}
	w.flags(cmd)
	return cmd
}

func (w *word) give(ctx context.Context, c *Console, what string, look func(context.Context, string) (*client.Holding, error),
	speak func(context.Context, string, client.Word) ([]client.Freed, error)) error {
	if strings.TrimSpace(w.why) == "" {
		return Usage("--reason is needed: it is kept in the claim and in the log")
	}
	if w.by == "" {
		w.by = whoAmI()
	}
	h, err := look(ctx, what)
	if err != nil {
		return err
	}
	if !c.JSON() {
		w.show(c, h)
	}
	if h.Renewing && !w.renews {
		return fault.New(fault.Conflict, "node %s renews its lease: move or stop the instance instead (holdfast instance move), or say --although-it-renews", h.Hostname)
	}
	if err := w.agreed(c, h); err != nil {
		return err
	}
	freed, err := speak(ctx, what, client.Word{Node: h.Node, Generation: h.Generation, Version: h.Version, Claims: h.Claims, Renewing: w.renews, By: w.by, Why: w.why})
	if err != nil {
		return err
	}
	return w.tell(c, h, freed)
}

func (w *word) show(c *Console, h *client.Holding) {
	state := "renews its lease NOW"
	switch {
	case h.Alive && !h.Renewing:
		state = "its lease stands still since " + ago(h.RenewedAt)
	case !h.Alive && !h.DeadAt.IsZero():
		state = "declared dead " + ago(h.DeadAt) + " ago by " + h.DeadBy
	case !h.Alive:
		state = "no lease"
	}
	fmt.Fprintf(c.Err, "node %s (%s), lease generation %d: %s\n", dash(h.Hostname), h.Node, h.Generation, state)
	t := Table{Head: []string{"VOLUME", "EPOCH", "SINCE", "POLICY", "OWNER"}}
	for _, k := range h.Claims {
		t.Add(k.Driver+"/"+k.Name, fmt.Sprint(k.Epoch), ago(k.Since), dash(k.Policy), dash(k.Owner))
	}
	if len(h.Claims) > 0 {
		t.Print(c.Err)
	} else {
		fmt.Fprintln(c.Err, "it holds nothing")
	}
	for _, r := range h.Risks {
		fmt.Fprintf(c.Err, "- %s\n", r)
	}
}

// agreed asks for the node's name, which nobody types by accident.
func (w *word) agreed(c *Console, h *client.Holding) error {
	if w.yes {
		return nil
	}
	want := h.Hostname
	if want == "" {
		want = h.Node
	}
	return c.retype("node's name", want, "to give your word")
}

// retype asks for a name that nobody types by accident.
func (c *Console) retype(what, want, to string) error {
	in, ok := c.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return Usage("there is nobody to ask here: read what it does, then say --yes")
	}
	fmt.Fprintf(c.Err, "Type the %s (%s) %s: ", what, want, to)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		return fault.New(fault.Conflict, "nothing was done: %q is not the %s", strings.TrimSpace(line), what)
	}
	return nil
}

func (w *word) tell(c *Console, h *client.Holding, freed []client.Freed) error {
	failed := 0
	for _, f := range freed {
		if f.Error != "" {
			failed++
		}
	}
	if c.JSON() {
		c.Encode(c.Out, map[string]any{"node": h.Node, "freed": freed})
	} else {
		for _, f := range freed {
			name := f.Volume
			for _, k := range h.Claims {
				if k.Volume == f.Volume {
					name = k.Driver + "/" + k.Name
				}
			}
			if f.Error != "" {
				fmt.Fprintf(c.Err, "%s: %s\n", name, f.Error)
			} else {
				fmt.Fprintf(c.Out, "%s is free (epoch %d)\n", name, f.Epoch)
			}
		}
	}
	if failed > 0 {
		return fault.New(fault.Conflict, "%d of %d claims were not freed", failed, len(freed))
	}
	return nil
}

// whoAmI names the person: behind sudo, the one who called it.
func whoAmI() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		name = userName()
	}
	host, _ := os.Hostname()
	return name + "@" + host
}

// startOverCommand is `holdfast start-over`.
func startOverCommand(c *Console) *cobra.Command {
	return &cobra.Command{Use: "start-over", Short: "Register a framework that the master has ended as a new one", Args: cobra.NoArgs,
		Long: "Mesos forgets a framework that was torn down, or that was away for longer than --failover-timeout, and never takes its id again. This forgets the id here, too, so that\n" +
			"the framework registers as a new one. Apps, volumes, claims and reservations stay; instances whose tasks the master ended start again once their claims are free.\n" +
			"Refused while the master has not said that the old one is over.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.Client().StartOver(cmd.Context(), whoAmI())
			if err != nil {
				return err
			}
			if c.JSON() {
				c.Encode(c.Out, r)
			} else {
				fmt.Fprintln(c.Out, "accepted; holdfast explain and the page show the new registration")
			}
			return nil
		}}
}
