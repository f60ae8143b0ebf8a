package deadman_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/deadman"
	"github.com/holdfast-io/holdfast/isolator/deadman/deadmantest"
)

func TestMayFeed(t *testing.T) {
	const s = time.Second
	base := deadman.Situation{Now: 10 * s, Deadline: 12 * s, Limit: 5 * s, Timeout: 5 * s, Managed: 1}
	for _, c := range []struct {
		name   string
		change func(*deadman.Situation)
		may    bool
	}{
		{"before the deadline", func(*deadman.Situation) {}, true},
		{"just before it", func(x *deadman.Situation) { x.Now = 12*s - 1 }, true},
		{"at it", func(x *deadman.Situation) { x.Now = 12 * s }, false},
		{"long after it", func(x *deadman.Situation) { x.Now = 120 * s }, false},
		{"a device quicker than S, within the difference", func(x *deadman.Situation) { x.Now, x.Timeout = 15*s-1, 2*s }, true},
		{"a device quicker than S, at its end", func(x *deadman.Situation) { x.Now, x.Timeout = 15*s, 2*s }, false},
		{"a device slower than S", func(x *deadman.Situation) { x.Now, x.Timeout = 12*s, 30*s }, false},
		{"nothing held", func(x *deadman.Situation) { x.Now, x.Managed = 120*s, 0 }, true},
		{"nothing held, never a lease", func(x *deadman.Situation) { x.Managed, x.Deadline = 0, 0 }, true},
		{"not known what is held", func(x *deadman.Situation) { x.Now, x.Managed = 120*s, -1 }, false},
		{"not known what is held, before the deadline", func(x *deadman.Situation) { x.Managed = -1 }, true},
		{"held without any lease", func(x *deadman.Situation) { x.Deadline = 0 }, false},
		{"fence verified", func(x *deadman.Situation) { x.Now, x.Verified = 120*s, true }, true},
	} {
		x := base
		c.change(&x)
		if may := x.MayFeed(); may != c.may {
			t.Errorf("%s: %v, want %v", c.name, may, c.may)
		}
	}
}

// Whatever the time-out, who may feed before the last moment and is stopped there for as long as the device lets him, is reset by D+S+H with the least H.
func TestResetBound(t *testing.T) {
	for limit := time.Second; limit <= 10*time.Second; limit += time.Second {
		for timeout := time.Second; timeout <= 20*time.Second; timeout += time.Second {
			const d = time.Hour
			last := d // the last instant at which feeding is begun
			for s := (deadman.Situation{Now: last, Deadline: d, Limit: limit, Timeout: timeout, Managed: 1}); s.MayFeed(); s.Now += time.Second {
				last = s.Now + time.Second
			}
			late := last + timeout // fed again there at the latest: otherwise the machine is reset
			if reset := late + timeout; reset > d+limit+deadman.Reset(timeout, limit) {
				t.Errorf("S %v, time-out %v: reset at D+%v, D+S+H is D+%v", limit, timeout, reset-d, limit+deadman.Reset(timeout, limit))
			}
		}
	}
}

func TestNoDevice(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "watchdog")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path    string
		timeout time.Duration
		class   fault.Class
		says    string
	}{
		"missing":       {plain + "x", time.Second, fault.Unavailable, "no such file"},
		"no device":     {plain, time.Second, fault.Invalid, "is no watchdog device"},
		"half a second": {plain, time.Second / 2, fault.Invalid, "whole seconds"},
		"fractions":     {plain, 1500 * time.Millisecond, fault.Invalid, "whole seconds"},
	} {
		if _, err := deadman.Arm(c.path, c.timeout); !fault.Is(err, c.class) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The device as the kernel serves it, by its stand-in: armed, fed, disarmed only by the magic close, and counting on when its process is gone.
func TestHeavyDevice(t *testing.T) {
	heavy.Require(t, heavy.Root)
	dev := deadmantest.New(t, nil)
	d, err := deadman.Arm(dev.Path, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if d.Timeout != 2*time.Second || d.Identity != dev.Identity || !dev.Running() {
		t.Errorf("armed: %+v, running %v", d, dev.Running())
	}
	if _, err := deadman.Arm(dev.Path, time.Second); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a second time: %v", err)
	}
	before := dev.Feeds()
	if err := d.Feed(); err != nil || dev.Feeds() != before+1 {
		t.Errorf("feed: %v, %d after %d", err, dev.Feeds(), before)
	}
	if err := d.Disarm(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "disarmed", func() bool { return !dev.Running() })

	dev.RoundUp = 3 * time.Second
	if d, err = deadman.Arm(dev.Path, 2*time.Second); err != nil || d.Timeout != 3*time.Second {
		t.Fatalf("coarse: %v, %v", d, err)
	}
	_ = d.Disarm()
	waitFor(t, "disarmed", func() bool { return !dev.Running() })

	dev.NoMagic = true
	if _, err = deadman.Arm(dev.Path, 2*time.Second); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "magic close") {
		t.Errorf("without the magic close: %v", err)
	}
	waitFor(t, "let go", func() bool { return !dev.Running() })
	dev.NoMagic, dev.Identity = false, "Software Watchdog"
	if _, err = deadman.Arm(dev.Path, 2*time.Second); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "nowayout") {
		t.Errorf("softdog without nowayout: %v", err)
	}
	waitFor(t, "let go", func() bool { return !dev.Running() })
	if dev.Resets() != 0 {
		t.Errorf("%d resets", dev.Resets())
	}
}

func waitFor(t *testing.T, what string, good func() bool) {
	t.Helper()
	for range 1000 {
		if good() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("not: %s", what)
}
