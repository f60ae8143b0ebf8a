package agent

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

// TestHeavyLife leads an agent through a random life: tasks with volumes that end, are killed or resist, restarts of the agent process, losses of the machine, cut
// links. Whatever happens, every task has one proper history, nothing of it runs on, and every volume is given back after its last user.
func TestHeavyLife(t *testing.T) {
	heavy.Require(t)
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	var tasks []string
	lost := map[string]bool{} // tasks that were there when the machine lost power
	scripts := []string{"true", "exit 1", "sleep 0.05", "sleep 1000", "trap '' TERM; while :; do sleep 0.02; done", "(setsid sleep 1000 &); sleep 1000", "sleep 0.1 & wait; exit 2"}
	volumes := []string{"vol-a", "vol-b", "vol-c", "fail-d"}
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond) {
		switch n := rnd.IntN(100); {
		case n < 45 && a.Registered():
			id := fmt.Sprintf("t%d", len(tasks))
			tasks = append(tasks, id)
			task := shell(id, scripts[rnd.IntN(len(scripts))])
			if rnd.IntN(3) > 0 {
				task = withVolume(task, "data", volumes[rnd.IntN(len(volumes))])
			}
			a.peer.Run(framework(), task)
		case n < 85 && len(tasks) > 0:
			kill(a, tasks[rnd.IntN(len(tasks))], time.Duration(rnd.IntN(60))*time.Millisecond)
		case n < 92:
			restart(t, a)
		case n < 95:
			for _, task := range a.Tasks() {
				lost[task.ID] = true
			}
			if err := a.Kill(); err != nil {
				t.Fatal(err)
			}
			if left := processesWith("MESOS_SANDBOX=" + a.Dir()); len(left) > 0 {
				t.Fatalf("processes outlived the machine: %v", left)
			}
			os.WriteFile(s.dir+"/calls", append(readMaybe(s.dir+"/calls"), []byte("power\n")...), 0o644)
			if err := a.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		default:
			m.mu.Lock()
			m.cut = true
			m.mu.Unlock()
			time.Sleep(30 * time.Millisecond)
			m.mu.Lock()
			m.cut = false
			m.mu.Unlock()
		}
	}
	for deadline := time.Now().Add(20 * time.Second); len(a.Tasks()) > 0; time.Sleep(20 * time.Millisecond) {
		for _, task := range a.Tasks() {
			kill(a, task.ID, 0)
		}
		if time.Now().After(deadline) {
			t.Fatalf("tasks do not end: %+v", a.Tasks())
		}
	}
	for _, id := range tasks {
		checkHistory(t, id, m.seen(id))
	}
	if left := processesWith("MESOS_SANDBOX=" + a.Dir()); len(left) > 0 {
		t.Errorf("processes live on: %v", left)
	}
	checkCalls(t, string(readMaybe(s.dir+"/calls")))
	t.Logf("%d tasks, %d of them lost with the machine", len(tasks), len(lost))
}

// checkHistory allows what the agent may say of one task; GONE answers a kill that came after its end.
func checkHistory(t *testing.T, id, history string) {
	t.Helper()
	var states []string
	for _, s := range strings.Split(strings.ReplaceAll(history, "\n", ""), "; ") {
		word, _, _ := strings.Cut(s, ":")
		if word != "GONE" {
			states = append(states, word)
		}
	}
	got := strings.Join(states, " ")
	end := states[len(states)-1]
	over := end == "FINISHED" || end == "FAILED" || end == "KILLED"
	if rest := strings.TrimSuffix(got, end); !over || rest != "STARTING RUNNING " && rest != "" {
		t.Errorf("%s: %q", id, history)
	}
}

// checkCalls replays dvdcli's calls: at the end, and after every loss of power, nothing is mounted.
func checkCalls(t *testing.T, log string) {
	t.Helper()
	mounted := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(log), "\n") {
		f := strings.Fields(line)
		switch f[0] {
		case "power":
			clear(mounted)
		case "mount":
			mounted[f[2]] = true
		case "unmount":
			delete(mounted, f[2])
		}
	}
	if len(mounted) > 0 {
		t.Errorf("never unmounted: %v", mounted)
	}
}
