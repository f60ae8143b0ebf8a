package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// chaosBatch is how many things are broken before everything is mended and must settle.
const chaosBatch = 6

// chaos breaks things at random, by seed, and mends them from time to time; then everything must run and go on writing. The
// audit at the end is the demo's.
func (d *demo) chaos(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(d.cfg.Seed, 0))
	d.note("%d acts, --seed %d", d.cfg.Acts, d.cfg.Seed)
	for n := 1; n <= d.cfg.Acts; n++ {
		what, err := d.breakSomething(ctx, rng)
		// What cannot be done now (it is off already, a deployment is under way, the framework is coming up) is nothing wrong.
		switch fault.ClassOf(err) {
		case "":
			d.note("%3d: %s", n, what)
		case fault.Conflict, fault.Unavailable, fault.Unknown, fault.NotFound:
			d.note("%3d: %s: not now: %v", n, what, err)
		default:
			return fault.Op(err, "%s", what)
		}
		// Mostly sooner than a lease runs out, sometimes later.
		pause := 1000
		if rng.IntN(3) == 0 {
			pause = 7000
		}
		time.Sleep(time.Duration(rng.IntN(pause)) * time.Millisecond)
		if n%chaosBatch == 0 || n == d.cfg.Acts {
			if err := d.mend(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *demo) breakSomething(ctx context.Context, rng *rand.Rand) (what string, err error) {
	agent := fmt.Sprintf("agent%d", 1+rng.IntN(d.cfg.Agents))
	instance := fmt.Sprintf("records.%d", rng.IntN(max(d.wanted, 1)))
	order := func(verb string, o dev.Order) (string, error) {
		_, err := d.ctl.Agent(ctx, agent, verb, o)
		return verb + " " + agent, err
	}
	switch rng.IntN(15) {
	case 0, 1:
		return order("kill", dev.Order{})
	case 2:
		return order("start", dev.Order{})
	case 3:
		return order("partition", dev.Order{FromMaster: true, FromAuthority: true})
	case 4:
		o := dev.Order{FromMaster: rng.IntN(2) == 0}
		o.FromAuthority = !o.FromMaster
		what, err := order("partition", o)
		return fmt.Sprintf("%s %+v", what, o), err
	case 5:
		return order("stop", dev.Order{})
	case 6:
		return order("crash-helper", dev.Order{})
	case 7:
		_, err := d.ctl.Framework(ctx, "restart")
		return "kill -9 of the framework", err
	case 8:
		_, err := d.api.MoveInstance(ctx, instance)
		return "move " + instance, err
	case 9:
		return d.killTask(instance)
	case 10:
		n := 1 + rng.IntN(5)
		_, err := d.api.Scale(ctx, app, n, true)
		if err == nil {
			d.wanted = n
		} else if fault.Is(err, fault.Unknown) {
			d.wanted = 0 // mend scales anew
		}
		return fmt.Sprintf("scale to %d", n), err
	case 11:
		verb := []string{"drain", "cordon", "uncordon"}[rng.IntN(3)]
		_, err := d.api.OrderNode(ctx, agent, verb, "chaos", "demo")
		return verb + " node " + agent, err
	case 12:
		_, err := d.api.Freeze(ctx, "chaos", "demo", time.Duration(rng.IntN(5000))*time.Millisecond)
		return "freeze", err
	case 13:
		_, err := d.api.Thaw(ctx, "demo")
		return "thaw", err
	default:
		return "kill -9 of the supervisor, and start", d.killSupervisor(ctx)
	}
}

// killTask is kill -9 of the writers of an instance, wherever they run.
func (d *demo) killTask(id string) (string, error) {
	what := "kill -9 of the task of " + id
	app, ordinal, _ := strings.Cut(id, ".")
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return what, err
	}
	killed := 0
	for _, name := range procs {
		raw, err := os.ReadFile(name)
		env := "\x00" + string(raw)
		if err != nil || !strings.Contains(env, "\x00MESOS_SANDBOX="+d.state()+"/") || !strings.Contains(env, "\x00HOLDFAST_APP_ID=/"+app+"\x00") ||
			!strings.Contains(env, "\x00HOLDFAST_INSTANCE="+ordinal+"\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	if killed == 0 {
		return what, fault.New(fault.NotFound, "it does not run")
	}
	return what, nil
}

func (d *demo) killSupervisor(ctx context.Context) error {
	d.cluster.Kill()
	return d.startCluster(ctx)
}

// openAgain ends what keeps instances from being placed: freeze, brake, orders for nodes.
func (d *demo) openAgain(ctx context.Context) error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := d.api.Thaw(ctx, "demo")
		var nodes []client.Node
		if err == nil {
			nodes, err = d.api.Nodes(ctx)
		}
		for _, n := range nodes {
			if n.Order != nil && err == nil {
				_, err = d.api.OrderNode(ctx, n.UID, "uncordon", "", "demo")
			}
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// mend puts everything back, and wants everything to run and to write.
func (d *demo) mend(ctx context.Context) error {
	s, err := d.ctl.Status(ctx)
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if n.State != "up" {
			if _, err := d.ctl.Agent(ctx, n.Name, "start", dev.Order{}); err != nil {
				return err
			}
		}
		if _, err := d.ctl.Agent(ctx, n.Name, "heal", dev.Order{}); err != nil {
			return err
		}
	}
	if err := d.openAgain(ctx); err != nil {
		return err
	}
	if d.wanted == 0 {
		d.wanted = 3
		if err := d.scale(ctx, d.wanted); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := d.settled(ctx, d.wanted); err != nil {
		return err
	}
	d.note("     everything is mended and all runs after %.1f s", time.Since(began).Seconds())
	return d.allWrite(ctx, d.wanted, 5)
}
