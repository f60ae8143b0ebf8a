package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
)

func leaseCommand(c *console.Console) *cobra.Command {
	return console.Verbs("lease", "Leases: check the constants that failover rests on", leaseCheckCommand(c))
}

// inequality is one line of the derivation.
type inequality struct {
	Name  string `json:"name"`
	Rule  string `json:"rule"`
	With  string `json:"with"`
	Wrong string `json:"wrong,omitempty"` // what is wrong, with the smallest change; "" when it holds
}

// nodeCheck is what a node publishes, and whether W covers it.
type nodeCheck struct {
	Node     string       `json:"node"`
	Hostname string       `json:"hostname"`
	Alive    bool         `json:"alive"`
	Grade    lease.Grade  `json:"grade"`
	Timing   lease.Timing `json:"timing"`
	Needs    string       `json:"needs"` // the least W
	Wrong    string       `json:"wrong,omitempty"`
}

// leaseReport is what `lease check` says.
type leaseReport struct {
	Constants    string       `json:"constants"`
	Inequalities []inequality `json:"inequalities"`
	Authority    string       `json:"authority,omitempty"`
	Root         *lease.Root  `json:"root,omitempty"`
	Nodes        []nodeCheck  `json:"nodes,omitempty"`
}

func leaseCheckCommand(c *console.Console) *cobra.Command {
	var address string
	var files dial.Options
	var flags timingFlags
	cmd := &cobra.Command{
		Use: "check", Short: "Derive the lease's constants, and check them against what the nodes publish", Args: cobra.NoArgs,
		Long: "Shows the constants that `holdfast framework` and `holdfast isolator` would take with the same flags, and whether the\n" +
			"inequalities of docs/safety.md hold. With --authority also what every node publishes, and whether W is long enough for it.\n" +
			"Only reads. Fails when something does not hold.",
		Example: "  holdfast lease check --lease-deadline 30s\n  holdfast lease check --authority zk://h1,h2,h3/holdfast/prod",
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := flags.timings(address)
			r := deriveLease(t)
			if address != "" {
				if err := r.read(cmd.Context(), t, address, files); err != nil {
					return err
				}
			}
			if c.JSON() {
				c.Encode(c.Out, r)
			} else {
				r.print(c)
			}
			return r.verdict()
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "authority", "", "lease authority to read, as for `holdfast framework`")
	f.StringVar(&files.SecretFile, "authority-secret-file", "", "file with user:password for ZooKeeper, or the token for Consul")
	f.StringVar(&files.CAFile, "authority-ca-file", "", "certificates that consuls:// trusts")
	f.StringVar(&files.CertFile, "authority-cert-file", "", "client certificate for consuls://")
	f.StringVar(&files.KeyFile, "authority-key-file", "", "its key")
	flags.add(f)
	flags.addMount(f)
	flags.addWait(f)
	return cmd
}

// deriveLease checks the constants alone.
func deriveLease(t lease.Timings) *leaseReport {
	line := func(name, rule, with string, err error) inequality {
		out := inequality{Name: name, Rule: rule, With: with}
		if err != nil {
			out.Wrong = err.Error()
		}
		return out
	}
	r := &leaseReport{Constants: t.String()}
	holder := t.CheckHolder()
	var i3 error
	if holder != nil && strings.HasPrefix(holder.Error(), "I3") {
		holder, i3 = nil, holder
	}
	r.Inequalities = []inequality{
		line("I1", "F >= 3(P+R)", fmt.Sprintf("%v >= 3(%v+%v) = %v", t.F, t.P, t.R, 3*(t.P+t.R)), holder),
		line("I2", "W >= (F+S+H+E)(1+rho)/(1-rho)", fmt.Sprintf("%v >= (%v+%v+%v+%v)(1+%v)/(1-%v) = %v", t.W, t.F, t.S, t.H, t.E, t.Rho, t.Rho, t.LeastWait()), t.CheckTaker()),
		line("I3", "0 < M < F", fmt.Sprintf("%v < %v", t.M, t.F), i3),
	}
	return r
}

// read adds what the authority says.
func (r *leaseReport) read(ctx context.Context, t lease.Timings, address string, files dial.Options) error {
	registers, err := dial.Open(address, files)
	if err != nil {
		return err
	}
	defer registers.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	a := lease.New(registers, lease.Options{CallLimit: 5 * time.Second})
	r.Authority = withoutSecret(address)
	root, err := a.Root(ctx)
	if err != nil {
		return fault.Op(err, "authority %s", r.Authority)
	}
	r.Root = &root
	nodes, err := a.Nodes(ctx)
	bad, err := lease.OnlyBadRecords(err)
	if err != nil {
		return fault.Op(err, "authority %s", r.Authority)
	}
	for _, n := range nodes {
		published := lease.Timings{F: secondsOf(n.Timing.F), S: secondsOf(n.Timing.S), H: secondsOf(n.Timing.H), E: secondsOf(n.Timing.E), Rho: t.Rho}
		check := nodeCheck{Node: n.UID, Hostname: n.Hostname, Alive: n.Alive, Grade: n.Grade, Timing: n.Timing, Needs: published.LeastWait().String()}
		if err := t.CheckAgainst(n.Timing); err != nil {
			check.Wrong = err.Error()
		}
		r.Nodes = append(r.Nodes, check)
	}
	if bad != nil {
		return fault.Op(bad, "records of nodes")
	}
	return nil
}

func secondsOf(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (r *leaseReport) print(c *console.Console) {
	fmt.Fprintln(c.Out, r.Constants)
	w := tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
	for _, i := range r.Inequalities {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", i.Name, i.Rule, i.With, orHolds(i.Wrong))
	}
	_ = w.Flush()
	if r.Root == nil {
		return
	}
	fmt.Fprintf(c.Out, "\nauthority %s: cluster %s, root %s, generation %d", r.Authority, r.Root.Cluster, r.Root.UUID, r.Root.Generation)
	if r.Root.Sealed {
		fmt.Fprint(c.Out, ", SEALED: nothing is renewed or granted")
	}
	fmt.Fprintln(c.Out)
	if len(r.Nodes) == 0 {
		fmt.Fprintln(c.Out, "no node has registered")
		return
	}
	w = tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tHOST\tLEASE\tGRADE\tF\tS\tH\tE\tNEEDS W\tI2")
	for _, n := range r.Nodes {
		state := "dead"
		if n.Alive {
			state = "alive"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%vs\t%vs\t%vs\t%vs\t%s\t%s\n", n.Node, printable(n.Hostname), state, n.Grade, n.Timing.F, n.Timing.S, n.Timing.H, n.Timing.E, n.Needs, orHolds(n.Wrong))
	}
	_ = w.Flush()
}

// printable keeps a terminal safe from what a node calls itself.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func orHolds(wrong string) string {
	if wrong == "" {
		return "holds"
	}
	return "DOES NOT HOLD"
}

// verdict is the first thing that does not hold.
func (r *leaseReport) verdict() error {
	for _, i := range r.Inequalities {
		if i.Wrong != "" {
			return fault.New(fault.Invalid, "%s", i.Wrong)
		}
	}
	for _, n := range r.Nodes {
		if n.Wrong != "" && n.Alive {
			return fault.New(fault.Invalid, "node %s (%s) is not taken over: %s", n.Node, printable(n.Hostname), n.Wrong)
		}
	}
	return nil
}
