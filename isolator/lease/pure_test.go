package lease_test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

const sec = time.Second

var example = lease.Timings{P: 3 * sec, R: 2 * sec, F: 15 * sec, S: 5 * sec, H: 5 * sec, E: 2 * sec, M: 5 * sec, W: 33 * sec, Rho: 0.1}

func TestTimings(t *testing.T) {
	for name, good := range map[string]lease.Timings{"example": example, "embedded": lease.EmbeddedTimings()} {
		if err := good.CheckHolder(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := good.CheckTaker(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*lease.Timings)
		check  func(lease.Timings) error
		says   string
	}{
		{"I1", func(x *lease.Timings) { x.F = 14 * sec }, lease.Timings.CheckHolder, "I1 does not hold: F >= 3(P+R), but F = 14s and 3(3s+2s) = 15s: raise F to 15s"},
		{"I2", func(x *lease.Timings) { x.W = 32 * sec }, lease.Timings.CheckTaker, "W = 32s and (15s+5s+5s+2s)(1+0.1)/(1-0.1) = 33s: raise W to 33s"},
		{"I2 by a hair", func(x *lease.Timings) { x.W = 33*sec - 1 }, lease.Timings.CheckTaker, "raise W to 33s"},
		{"I2 without rho", func(x *lease.Timings) { x.W, x.Rho = 26*sec, 0 }, lease.Timings.CheckTaker, "= 27s: raise W to 27s"},
		{"I3", func(x *lease.Timings) { x.M = 15 * sec }, lease.Timings.CheckHolder, "I3 can never hold"},
		{"I4", func(*lease.Timings) {}, func(x lease.Timings) error { return x.CheckDeadMan(5*sec, sec) }, "5s+1s = 6s: raise H to 6s, or lower the time-out to 4s"},
		{"negative", func(x *lease.Timings) { x.S = -1 * sec }, lease.Timings.CheckHolder, "S = -1"},
		{"no P", func(x *lease.Timings) { x.P = 0 }, lease.Timings.CheckTaker, "P = 0s"},
		{"no W", func(x *lease.Timings) { x.W = 0 }, lease.Timings.CheckTaker, "W = 0s"},
		{"rho", func(x *lease.Timings) { x.Rho = 1 }, lease.Timings.CheckTaker, "rho = 1"},
	} {
		x := example
		c.change(&x)
		err := c.check(x)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.says)
		}
	}
}

// renewed is the record after a renewal.
func renewed(g, seq, version uint64) *lease.NodeVersion {
	return &lease.NodeVersion{Node: lease.Node{UID: "n", BootID: "boot", Generation: g, Seq: seq, Alive: true, Timing: example.Publish()}, Version: version}
}

// leased is a holder with generation 1 and D at 15 s.
func leasedHolder(t *testing.T) *lease.Holder {
	t.Helper()
	h := lease.NewHolder(example, "n", "boot", 0, 0)
	if p := h.Start(0, nil); p != lease.Unverified {
		t.Fatalf("a new node is in phase %v", p)
	}
	h.Send(1, 0)
	if d, ok := h.Acknowledged(2*sec, 1, 1, 10); !ok || d != 15*sec {
		t.Fatalf("registered: D = %v, %v", d, ok)
	}
	return h
}

func TestDeadlineCountsFromSending(t *testing.T) {
	h := leasedHolder(t)
	h.Send(2, 3*sec)
	if d, ok := h.Acknowledged(5*sec, 1, 2, 11); !ok || d != 18*sec {
		t.Errorf("D = %v, %v; want 18s", d, ok)
	}
	for _, c := range []struct {
		now, m time.Duration
		want   bool
	}{{12 * sec, 5 * sec, true}, {13 * sec, 5 * sec, true}, {13*sec + 1, 5 * sec, false}, {18 * sec, 0, true}, {18*sec + 1, 0, false}} {
		if got := h.MayMount(c.now, c.m); got != c.want {
			t.Errorf("I3 at %v with M %v: %v", c.now, c.m, got)
		}
	}
	if h.Expired(18*sec-1) || !h.Expired(18*sec) {
		t.Error("D is not the deadline")
	}
}

// Case 5: an acknowledgement that comes at D or later revives nothing, and neither does one that took longer than F.
func TestLateAcknowledgement(t *testing.T) {
	h := leasedHolder(t)
	h.Send(2, 14*sec)
	if _, ok := h.Acknowledged(15*sec, 1, 2, 11); ok {
		t.Error("an acknowledgement at D revived the lease")
	}
	h = leasedHolder(t)
	h.Send(2, 3*sec)
	h.Send(3, 6*sec)
	if d, ok := h.Acknowledged(7*sec, 1, 3, 12); !ok || d != 21*sec {
		t.Errorf("D = %v, %v", d, ok)
	}
	if d, ok := h.Acknowledged(8*sec, 1, 2, 11); ok {
		t.Errorf("an older acknowledgement was taken: D = %v", d)
	}
	h = lease.NewHolder(example, "n", "boot", 0, 0)
	h.Start(0, nil)
	h.Send(1, 0)
	if _, ok := h.Acknowledged(15*sec, 1, 1, 10); ok {
		t.Error("a registration that took F gave a lease")
	}
	// The same renewal sent twice counts from its first sending, for that is the one that may have arrived.
	h = leasedHolder(t)
	h.Send(2, 3*sec)
	h.Send(2, 9*sec)
	if d, ok := h.Acknowledged(10*sec, 1, 2, 11); !ok || d != 18*sec {
		t.Errorf("D = %v, %v; want 18s", d, ok)
	}
}

// Cases 8 and 19: who may go on, who must verify first, and who must wait.
func TestStart(t *testing.T) {
	dead := renewed(3, 7, 9)
	dead.Alive = false
	otherBoot := renewed(3, 7, 9)
	otherBoot.BootID = "other"
	for _, c := range []struct {
		name   string
		now    time.Duration
		record *lease.NodeVersion
		g      uint64
		d      time.Duration
		want   any
	}{
		{"killed and back inside F", 10 * sec, renewed(3, 7, 9), 3, 11 * sec, lease.Leased},
		{"back at D", 11 * sec, renewed(3, 7, 9), 3, 11 * sec, lease.Unverified},
		{"declared dead meanwhile", 10 * sec, dead, 3, 11 * sec, lease.Unverified},
		{"dead and nothing remembered", 10 * sec, dead, 0, 0, lease.Unverified},
		{"rebooted", 10 * sec, otherBoot, 0, 0, lease.Standing},
		{"cloned uid", 10 * sec, otherBoot, 2, 11 * sec, lease.Standing},
		{"memory lost", 10 * sec, renewed(3, 7, 9), 0, 0, lease.Standing},
		{"memory of an older generation", 10 * sec, renewed(3, 7, 9), 2, 11 * sec, lease.Standing},
		{"restarted under another boot id", 10 * sec, otherBoot, 3, 11 * sec, lease.Unverified},
	} {
		h := lease.NewHolder(example, "n", "boot", c.g, c.d)
		if got := h.Start(c.now, c.record); got != c.want {
			t.Errorf("%s: phase %v, want %v", c.name, got, c.want)
		}
	}
	h := leasedHolder(t)
	h.Lose()
	if p := h.Start(5*sec, renewed(1, 1, 10)); p != lease.Unverified {
		t.Errorf("a lease that was lost is continued: phase %v", p)
	}
}

func TestCollisions(t *testing.T) {
	byTaker, clone, otherG, gone := renewed(1, 1, 20), renewed(1, 5, 20), renewed(2, 2, 20), (*lease.NodeVersion)(nil)
	byTaker.Alive, byTaker.DeadBy = false, "taker"
	clone.BootID = "other"
	for want, record := range map[string]*lease.NodeVersion{"declared dead by taker": byTaker, "another machine": clone, "another machine or": otherG,
		"gone": gone, "another process": renewed(1, 9, 20)} {
		h := leasedHolder(t)
		h.Send(2, 3*sec)
		if got := h.Collided(record); !strings.Contains(got, want) {
			t.Errorf("%q, want %q in it", got, want)
		}
	}
	h := leasedHolder(t)
	h.Send(2, 3*sec)
	if got := h.Collided(renewed(1, 2, 20)); got != "" {
		t.Errorf("our own write, thought lost: %q", got)
	}
}

func nodes(n ...*lease.NodeVersion) (out []lease.NodeVersion) {
	for _, x := range n {
		out = append(out, *x)
	}
	return out
}

// Dead at r + W with the version unchanged, not a moment before; every renewal begins the wait anew.
func TestObserver(t *testing.T) {
	o := lease.NewObserver(example)
	look := func(now time.Duration, n *lease.NodeVersion, want bool) {
		t.Helper()
		dead, waits := o.Observe(now, nodes(n))
		if (len(dead) == 1) != want {
			t.Errorf("at %v: dead %v, want %v (%+v)", now, dead, want, waits)
		}
	}
	for now := 100 * sec; now < 133*sec; now += 3 * sec {
		look(now, renewed(1, 1, 10), false)
	}
	look(133*sec-1, renewed(1, 1, 10), false)
	look(133*sec, renewed(1, 1, 10), true)
	look(134*sec, renewed(1, 2, 11), false) // it lives
	for now := 136 * sec; now < 167*sec; now += 3 * sec {
		look(now, renewed(1, 2, 11), false)
	}
	look(167*sec, renewed(1, 2, 11), true)
	killed := renewed(1, 2, 12)
	killed.Alive = false
	look(168*sec, killed, false)
}

// Case 7: the wait is not carried over a hole in the observation, nor from another taker.
func TestObserverHoles(t *testing.T) {
	for name, hole := range map[string]func(o *lease.Observer) *lease.Observer{
		"failed reading":  func(o *lease.Observer) *lease.Observer { o.Hole(); return o },
		"new leader":      func(*lease.Observer) *lease.Observer { return lease.NewObserver(example) },
		"paused for long": func(o *lease.Observer) *lease.Observer { return o },
	} {
		o := lease.NewObserver(example)
		for now := time.Duration(0); now <= 10*sec; now += 3 * sec {
			o.Observe(now, nodes(renewed(1, 1, 10)))
		}
		o = hole(o)
		if dead, waits := o.Observe(40*sec, nodes(renewed(1, 1, 10))); len(dead) != 0 || waits[0].Due != 73*sec {
			t.Errorf("%s: dead %v, waits %+v", name, dead, waits)
		}
	}
}

// A node whose published constants the wait does not cover is never declared dead, and that is said.
func TestObserverRefusesShortWait(t *testing.T) {
	o := lease.NewObserver(example)
	slow, silent := renewed(1, 1, 10), renewed(1, 1, 10)
	slow.Timing.F = 16
	silent.UID, silent.Timing = "m", lease.Timing{}
	for now := time.Duration(0); now < 200*sec; now += 3 * sec {
		dead, waits := o.Observe(now, nodes(slow, silent))
		if len(dead) != 0 || !strings.Contains(waits[1].Blocked, "I2 does not hold") || !strings.Contains(waits[1].Blocked, "raise W to 34.223s") || waits[0].Blocked == "" {
			t.Fatalf("at %v: dead %v, waits %+v", now, dead, waits)
		}
	}
}

func TestClocks(t *testing.T) {
	for name, c := range map[string]lease.Clock{"boottime": lease.Boottime(), "monotonic": lease.Monotonic()} {
		began := c.Now()
		given, stop := c.After(time.Hour)
		stop()
		ch, stop := c.After(20 * time.Millisecond)
		<-ch
		stop()
		if took := c.Now() - began; took < 20*time.Millisecond || took > 2*sec {
			t.Errorf("%s: 20 ms took %v", name, took)
		}
		select {
		case <-given:
			t.Errorf("%s: a timer that was given up has fired", name)
		default:
		}
		ch, _ = c.After(-1)
		<-ch
	}
}
