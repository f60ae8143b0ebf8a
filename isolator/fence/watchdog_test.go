package fence

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDecide(t *testing.T) {
	const s = time.Second
	base := Situation{Now: 10 * s, Deadline: 12 * s, Managed: 1, IsolatorAlive: true, Limit: s}
	for _, c := range []struct {
		name   string
		change func(*Situation)
		act    Action
		until  time.Duration
	}{
		{"before the deadline", func(*Situation) {}, ActWait, 10*s + round},
		{"just before it", func(x *Situation) { x.Now, x.IsolatorAlive = 12*s-1, false }, ActWait, 12 * s},
		{"at it, isolator alive", func(x *Situation) { x.Now = 12 * s }, ActWait, 12*s + round},
		{"at it, isolator dead", func(x *Situation) { x.Now, x.IsolatorAlive = 12*s, false }, ActFence, 0},
		{"isolator stuck", func(x *Situation) { x.Now = 12*s + s/4 }, ActFence, 0},
		{"just fenced", func(x *Situation) { x.Now, x.FencedAt, x.FencedFor = 12*s+2*round, 12*s+2*round, 12*s }, ActWait, 12*s + 3*round},
		{"fenced a while ago", func(x *Situation) { x.Now, x.FencedAt, x.FencedFor = 13*s, 12*s, 12*s }, ActFence, 0},
		{"long after the deadline", func(x *Situation) { x.Now, x.FencedAt, x.FencedFor = 50*s, 49*s, 12*s }, ActWait, 50*s + round},
		{"fenced, isolator dead", func(x *Situation) { x.Now, x.FencedAt, x.FencedFor, x.IsolatorAlive = 13*s, 12*s, 12*s, false }, ActFence, 0},
		{"fenced, isolator dead, state removed", func(x *Situation) {
			x.Now, x.FencedAt, x.FencedFor, x.IsolatorAlive, x.Orphaned = 13*s, 12*s, 12*s, false, true
		}, ActExit, 0},
		{"state removed, isolator alive", func(x *Situation) { x.Now, x.FencedAt, x.FencedFor, x.Orphaned = 13*s, 12*s, 12*s, true }, ActFence, 0},
		{"fenced for an earlier deadline", func(x *Situation) { x.Now, x.FencedAt, x.FencedFor = 13*s, 13*s, 11*s }, ActFence, 0},
		{"never a lease", func(x *Situation) { x.Deadline, x.IsolatorAlive = 0, false }, ActFence, 0},
		{"list unreadable", func(x *Situation) { x.Now, x.Managed, x.IsolatorAlive = 12*s, -1, false }, ActFence, 0},
		{"nothing managed", func(x *Situation) { x.Now, x.Managed = 20*s, 0 }, ActWait, 20*s + round},
		{"nothing managed, drained", func(x *Situation) { x.Managed, x.Drained = 0, true }, ActExit, 0},
		{"drained, but managed", func(x *Situation) { x.Drained = true }, ActWait, 10*s + round},
		{"nothing managed, isolator dead", func(x *Situation) { x.Managed, x.IsolatorAlive = 0, false }, ActExit, 0},
	} {
		x := base
		c.change(&x)
		if act, until := Decide(x); act != c.act || until != c.until {
			t.Errorf("%s: %s %v, want %s %v", c.name, act, until, c.act, c.until)
		}
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := OpenState(path, unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	if g, d := s.Deadline(); g != 0 || d != 0 {
		t.Fatalf("fresh: %d %v", g, d)
	}
	if l, err := s.Mounts(); err != nil || l != nil {
		t.Fatalf("fresh: %v %v", l, err)
	}
	s.SetDeadline(3, 5*time.Second)
	for n := range 5 {
		if err := s.SetMounts(encoded(make([]Target, n)...)); err != nil {
			t.Fatal(err)
		}
		if l, err := s.Mounts(); err != nil || len(l) != n {
			t.Fatalf("%d: %v %v", n, l, err)
		}
	}
	if err := s.SetMounts(encoded(make([]Target, 100_000)...)); err == nil {
		t.Error("a list that does not fit was taken")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(9, 9) // after Close: nothing, and no crash
	again, err := OpenState(path, unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	if g, d := again.Deadline(); g != 3 || d != 5*time.Second {
		t.Errorf("after a restart: %d %v", g, d)
	}
	if l, err := again.Mounts(); err != nil || len(l) != 4 {
		t.Errorf("after a restart: %v %v", l, err)
	}
	again.set(wordBoot1, 1)
	_ = again.Close()
	other, err := OpenState(path, unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if g, d := other.Deadline(); g != 0 || d != 0 {
		t.Errorf("after another boot: %d %v", g, d)
	}
}

// The watchdog outlives an isolator that is killed, leaves the users alone until D, kills them then, and ends.
func TestWatchdogAfterSIGKILL(t *testing.T) {
	volume, other := tree(t)
	state := filepath.Join(t.TempDir(), "state")
	user, bystander := start(t, "idle", in(volume)), start(t, "idle", in(other))
	isolator := start(t, "isolator "+state+" "+volume, nil)
	s, err := joinState(state)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, d := s.Deadline()
	if err := isolator.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if user.killed(max(d-s.now()-50*time.Millisecond, 0)) {
		t.Fatal("the user was killed before the deadline")
	}
	if !user.killed(3 * time.Second) {
		t.Fatal("the user was not killed")
	}
	t.Logf("killed %v after the deadline", s.now()-d)
	if bystander.killed(0) {
		t.Error("a bystander was killed")
	}
	for time.Duration(s.get(wordWatchdogFence)) != d {
		time.Sleep(time.Millisecond)
	}
	// A task that was on its way when the deadline came is stopped, too.
	if late := start(t, "idle", in(volume)); !late.killed(3 * time.Second) {
		t.Error("a late user was not killed")
	}
	if err := os.Remove(state); err != nil { // nobody will ever come back to it
		t.Fatal(err)
	}
	awaitEnd(t, int(s.get(wordWatchdogPID)), state)
}

// A watchdog that is told that the node is drained ends; so does one with nothing to manage whose isolator has ended.
func TestWatchdogEnds(t *testing.T) {
	volume, _ := tree(t)
	state := filepath.Join(t.TempDir(), "state")
	isolator := start(t, "isolator "+state+" "+volume, nil)
	s, err := joinState(state)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pid := int(s.get(wordWatchdogPID))
	if err := s.SetMounts(nil); err != nil {
		t.Fatal(err)
	}
	s.Drain()
	awaitEnd(t, pid, state)
	// A living isolator starts the next at once, which writes its log.
	_ = isolator.Process.Kill()
	for end := time.Now().Add(5 * time.Second); os.RemoveAll(filepath.Dir(state)) != nil && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

func awaitEnd(t *testing.T, pid int, state string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st, err := readStat("/proc", pid); err != nil || st.state == 'Z' {
			return
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(state + ".log")
			t.Fatalf("the watchdog did not end:\n%s", log)
		}
	}
}
