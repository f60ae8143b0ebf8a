package isolatortest_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/isolatortest"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// TestHeavyTorture lets several volumes of the pool and of a plugin go through what Mesos and people do to them, by dvdcli, and kills in each round the isolator,
// the plugin, the watchdog, or the callers, at a random moment or step. After each round, when all has come to rest, an auditor compares
// mounts, claims, journal, drivers and data. HOLDFAST_TORTURE_ROUNDS says how many (20; `make torture`: ROUNDS), HOLDFAST_SEED from which seed; a round by
// itself is repeated by HOLDFAST_SEED=<seed of the round> with one round, as far as the machine's timing lets it.
func TestHeavyTorture(t *testing.T) {
	rounds := 20
	if os.Getenv("HOLDFAST_ROUNDS") == "" { // not make torture
		heavy.Require(t, heavy.Root)
	}
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_TORTURE_ROUNDS")); err == nil {
		rounds = n
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	r := newRack(t, seed)
	for i := range rounds {
		if r.round(seed + uint64(i)); t.Failed() {
			t.Fatalf("round %d of seed %d (HOLDFAST_SEED=%d)\n%s\n%s", i, seed, seed+uint64(i), r.story(), tail(r.log()))
		}
	}
	r.end()
	t.Logf("%d rounds: %v; %d lines written", rounds, r.counts, r.written())
}

// rack is a machine with a plugin process, dvdcli, and volumes that go through their lives.
type rack struct {
	*machine
	dvdcli  string
	plugins string
	plugin  *exec.Cmd
	volumes []*life
	rnd     *rand.Rand

	telling sync.Mutex
	told    []string
	counts  map[string]int
}

func newRack(t *testing.T, seed uint64) *rack {
	m := newMachine(t, 0)
	r := &rack{machine: m, plugins: filepath.Join(m.dir, "plugins"), counts: map[string]int{}}
	if seed%2 == 1 {
		m.poolFlags = []string{"-pool-backend", "loop", "-pool-size", strconv.Itoa(16 << 20)}
	}
	r.dvdcli = buildDvdcli(t, m.dir)
	if err := os.Mkdir(r.plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	m.args = []string{"-plugin-dir", r.plugins}
	t.Cleanup(func() {
		for _, v := range r.volumes {
			v.stopTask()
		}
		m.kill()
		r.killPlugin()
		for _, mt := range r.pluginMounts() {
			_ = syscall.Unmount(mt, syscall.MNT_DETACH)
		}
	})
	r.startPlugin()
	m.start("")
	for _, name := range []string{"g0", "g1", "g2"} {
		r.volumes = append(r.volumes, &life{r: r, ref: volume.Ref{Driver: "pool", Name: name}, granted: true})
	}
	for _, name := range []string{"h0", "h1"} {
		r.volumes = append(r.volumes, &life{r: r, ref: volume.Ref{Driver: "pool", Name: name}})
	}
	r.volumes = append(r.volumes, &life{r: r, ref: volume.Ref{Driver: "plug", Name: "p0"}, granted: true},
		&life{r: r, ref: volume.Ref{Driver: "plug", Name: "p1"}})
	for _, v := range r.volumes {
		if v.granted {
			v.create()
		}
	}
	return r
}

func (r *rack) startPlugin() {
	r.plugin = exec.Command(r.binary, isolatortest.PluginProgram, "-socket", filepath.Join(r.plugins, "plug.sock"), "-dir", filepath.Join(r.dir, "plug"), "-delay", "8ms")
	r.plugin.Stderr = os.Stderr
	if err := r.plugin.Start(); err != nil {
		r.Fatal(err)
	}
	r.eventually("plugin listens", func() bool {
		conn, err := net.Dial("unix", filepath.Join(r.plugins, "plug.sock"))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

func (r *rack) killPlugin() {
	_ = r.plugin.Process.Kill()
	_ = r.plugin.Wait()
}

// note writes down what happened, for the report of a failure.
func (r *rack) note(format string, args ...any) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.told = append(r.told, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

func (r *rack) count(what string) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.counts[what]++
}

func (r *rack) story() string {
	r.telling.Lock()
	defer r.telling.Unlock()
	out := ""
	for _, s := range r.told {
		out += s + "\n"
	}
	return out
}

func tail(s string) string { return s[max(0, len(s)-12000):] }

// round is one kill among operations, and the audit after it.
func (r *rack) round(seed uint64) {
	r.Helper()
	r.told = nil
	r.rnd = rand.New(rand.NewPCG(seed, 1))
	r.note("round of seed %d", seed)
	kill := r.chooseKill()
	var wg sync.WaitGroup
	for i, v := range r.volumes {
		v.begin(rand.New(rand.NewPCG(seed, uint64(i)+100)))
		wg.Add(1)
		go func() { defer wg.Done(); v.act() }()
	}
	wg.Add(1)
	go func() { defer wg.Done(); kill() }()
	wg.Wait()
	r.settle()
	r.audit()
}

// chooseKill prepares what is killed in a round and gives what does it.
func (r *rack) chooseKill() func() {
	after := time.Duration(r.rnd.IntN(60_000)) * time.Microsecond
	down := time.Duration(r.rnd.IntN(80)) * time.Millisecond
	x := r.rnd.IntN(100)
	do := func(what string, f func()) func() {
		return func() {
			time.Sleep(after)
			r.note("kill: %s", what)
			r.count(what)
			f()
		}
	}
	switch {
	case x < 35:
		return do("isolator", func() { r.kill(); time.Sleep(down); r.start("") })
	case x < 55:
		step := isolator.CrashSteps[r.rnd.IntN(len(isolator.CrashSteps))] + ":" + strconv.Itoa(1+r.rnd.IntN(3))
		r.kill()
		r.start(step)
		after = 150 * time.Millisecond
		return do("isolator at a step", func() { r.note("step %s died=%t", step, r.died()); r.kill(); time.Sleep(down); r.start("") })
	case x < 70:
		return do("plugin", func() { r.killPlugin(); time.Sleep(down); r.startPlugin() })
	case x < 78:
		return do("plugin and isolator", func() { r.killPlugin(); r.kill(); r.startPlugin(); r.start("") })
	case x < 86:
		return do("watchdog", func() { r.killWatchdog() })
	case x < 90:
		return do("watchdog and isolator", func() { r.killWatchdog(); r.kill(); r.start("") })
	case x < 93:
		return do("isolator past the deadline", func() {
			r.late()
			r.kill()
			time.Sleep(lease.EmbeddedTimings().F + 200*time.Millisecond)
			r.start("")
		})
	case x < 96:
		return do("isolator stopped past the deadline", func() {
			r.late()
			_ = r.proc.Process.Signal(syscall.SIGSTOP)
			time.Sleep(lease.EmbeddedTimings().F + time.Second)
			_ = r.proc.Process.Signal(syscall.SIGCONT)
		})
	}
	return do("nothing", func() {})
}

// late says that the lease will have run out: tasks are stopped then.
func (r *rack) late() {
	for _, v := range r.volumes {
		v.mu.Lock()
		v.lapsed = true
		v.mu.Unlock()
	}
}

func (r *rack) killWatchdog() {
	for _, pid := range processesOf(isolatortest.WatchdogProgram, filepath.Join(r.node, "watchdog")) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// processesOf finds processes by words of their command line.
func processesOf(words ...string) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, d := range dirs {
		raw, _ := os.ReadFile(d)
		all := len(raw) > 0
		for _, w := range words {
			all = all && containsArg(raw, w)
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(d))); err == nil && all {
			pids = append(pids, pid)
		}
	}
	return pids
}

// end takes everything down in the ordinary way.
func (r *rack) end() {
	for _, v := range r.volumes {
		v.begin(rand.New(rand.NewPCG(1, 1)))
		v.stopTask()
		for done := false; !done; { // its caller may be killed once more
			var err error
			if _, err, done = v.call(false, "unmount"); err != nil {
				r.Errorf("%s at the end: %v\n%s", v.ref, err, r.story())
			}
		}
	}
	r.settle()
	r.audit()
	for _, v := range r.volumes {
		if c, err := r.auth.ClaimByRef(bg, v.ref); err == nil && c.State == lease.Held {
			r.Errorf("%s is held at the end by epoch %d", v.ref, c.Epoch)
		}
	}
}

func (r *rack) written() (n int) {
	for _, v := range r.volumes {
		n += v.total
	}
	return n
}

func newUID() string { return uuid.Must(uuid.NewV7()).String() }
