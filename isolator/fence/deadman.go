package fence

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/deadman"
)

// SetDeadMan tells the watchdog which dead-man to arm ("" for none), with which time-out, and H, the bound of a reset by it.
func (s *State) SetDeadMan(path string, timeout, reset time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "the watchdog's state is closed")
	}
	if len(path) > stateTextMax {
		return fault.New(fault.Invalid, "dead-man: path of %d bytes is longer than %d", len(path), stateTextMax)
	}
	s.set(wordDeadManTimeout, uint64(timeout))
	s.set(wordReset, uint64(reset))
	s.setText(wordDeadManPath, stateDeadManPath, path)
	return nil
}

// SetPending tells the watchdog how many mounts are on their way that are not in its list, because only the driver's answer will say where they are. They
// count as held: nobody can verify that they did not come about.
func (s *State) SetPending(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.set(wordPending, uint64(n))
	}
}

// DeadMan gives the time-out of the dead-man that the watchdog has armed and feeds, 0 when there is none, and why there is none though one
// was asked for.
func (s *State) DeadMan() (armed time.Duration, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.get(wordDeadManPath) == 0 {
		return 0, ""
	}
	return time.Duration(s.get(wordDeadManArmed)), s.text(wordDeadManWhy, stateDeadManWhy)
}

// text and setText are a short text in the header, its length in a word. Who reads while it is replaced sees none, or a mixture that is for eyes only.
func (s *State) text(length word, at int) string {
	n := int(min(s.get(length), stateTextMax))
	return string(s.mem[at : at+n])
}

func (s *State) setText(length word, at int, text string) {
	text = text[:min(len(text), stateTextMax)]
	if s.text(length, at) == text {
		return
	}
	s.set(length, 0)
	copy(s.mem[at:at+stateTextMax], text)
	s.set(length, uint64(len(text)))
}

// deadMan is the watchdog's part of the dead-man: it arms it, and feeds it in turns of its own, since a fence takes its time.
type deadMan struct {
	state *State
	log   *zap.Logger
	// verified is the deadline for which the last fence was verified, -1 for none.
	verified atomic.Int64

	mu       sync.Mutex
	device   *deadman.Device
	retry    time.Duration // no arming before
	starving bool
	counts   bool // its time-out is within H
}

// start arms the device if that may be, and feeds it from then on for as long as the process lives.
func (d *deadMan) start() {
	d.verified.Store(-1)
	d.state.set(wordDeadManArmed, 0) // the watchdog before this one is gone
	d.turn()
	go func() {
		for {
			d.mu.Lock()
			pause := deadman.Pace(d.timeout())
			d.mu.Unlock()
			time.Sleep(pause)
			d.turn()
		}
	}()
}

// turn feeds the device, or arms it, if that may be.
func (d *deadMan) turn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := d.state.text(wordDeadManPath, stateDeadManPath)
	s := d.situation()
	switch {
	case d.device == nil && path != "":
		if s.Now >= d.retry && s.MayFeed() {
			d.arm(path, s)
		}
		return
	case d.device == nil:
		return
	case path != d.device.Path && s.Managed == 0 && d.disarm() == nil:
		return
	}
	if !s.MayFeed() {
		if !d.starving {
			d.log.Error("the dead-man is fed no more: the deadline has come and the fence is not verified; unless it is soon, the machine is reset",
				zap.String("device", d.device.Path), zap.Duration("time-out", d.device.Timeout), zap.Int("mounts", s.Managed))
		}
		d.starving = true
		return
	}
	if d.starving {
		d.log.Warn("the dead-man is fed again", zap.String("device", d.device.Path))
	}
	d.starving = false
	if err := d.device.Feed(); err != nil {
		d.failed(err)
	} else if d.counts {
		d.armed()
	}
}

// armed says that there is a dead-man to rely on. Called with the lock.
func (d *deadMan) armed() {
	d.state.setText(wordDeadManWhy, stateDeadManWhy, "")
	d.state.set(wordDeadManArmed, uint64(d.device.Timeout))
}

// situation is what there is to know now. Called with the lock.
func (d *deadMan) situation() deadman.Situation {
	s := deadman.Situation{Deadline: time.Duration(d.state.get(wordDeadline)), Limit: time.Duration(d.state.get(wordLimit)), Timeout: d.timeout()}
	targets, err := d.state.Mounts()
	if s.Managed = len(targets); err != nil {
		s.Managed = -1
	}
	pending := int(d.state.get(wordPending))
	if pending > 0 && s.Managed >= 0 {
		s.Managed += pending
	}
	s.Verified = d.verified.Load() == int64(s.Deadline) && pending == 0
	s.Now = d.state.now() // last: what was read is no newer
	return s
}

func (d *deadMan) timeout() time.Duration {
	if d.device != nil {
		return d.device.Timeout
	}
	return time.Duration(d.state.get(wordDeadManTimeout))
}

// arm opens the device; when it cannot be, or is slower than H allows, it says so and tries again later. Called with the lock.
func (d *deadMan) arm(path string, s deadman.Situation) {
	d.retry = s.Now + 5*time.Second
	device, err := deadman.Arm(path, s.Timeout)
	if err != nil {
		d.failed(err)
		return
	}
	d.device, d.counts = device, true
	reset := time.Duration(d.state.get(wordReset))
	if need := deadman.Reset(device.Timeout, s.Limit); reset < need {
		err := fault.New(fault.Invalid, "I4 does not hold: %s (%s) has a time-out of %v, not %v, so that a reset takes up to %v, but H = %v: raise H to %v", path, device.Identity,
			device.Timeout, s.Timeout, need, reset, need)
		d.failed(err)
		d.counts = false
		_ = d.disarm() // one that cannot be disarmed is fed on, but counts for nothing
		return
	}
	d.armed()
	d.log.Warn("the dead-man is armed: the machine is reset when this process does not feed it", zap.String("device", path), zap.String("identity", device.Identity),
		zap.Duration("time-out", device.Timeout), zap.Bool("nowayout", device.NoWayOut))
}

// failed says that there is no dead-man to rely on. Called with the lock.
func (d *deadMan) failed(err error) {
	d.state.set(wordDeadManArmed, 0)
	if d.state.text(wordDeadManWhy, stateDeadManWhy) != err.Error() {
		d.log.Error("there is no dead-man: the fence grade stays soft", zap.Error(err))
	}
	d.state.setText(wordDeadManWhy, stateDeadManWhy, err.Error())
}

// letGo disarms the device before the watchdog ends, and tells whether it may end: it may not while the machine would be reset for it, and not when
// something has come to be managed.
func (d *deadMan) letGo() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.device == nil {
		return true
	}
	d.state.set(wordDeadManArmed, 0) // first: who mounts from now on does not count on it
	if targets, err := d.state.Mounts(); err != nil || len(targets) > 0 || d.state.get(wordPending) > 0 {
		return false
	}
	return d.disarm() == nil
}

func (d *deadMan) disarm() error {
	err := d.device.Disarm()
	if err != nil {
		if d.state.text(wordDeadManWhy, stateDeadManWhy) != err.Error() {
			d.log.Error("the dead-man cannot be disarmed: it is fed on", zap.Error(err))
		}
		d.state.setText(wordDeadManWhy, stateDeadManWhy, err.Error())
		return err
	}
	d.log.Info("the dead-man is disarmed", zap.String("device", d.device.Path))
	d.device = nil
	d.state.set(wordDeadManArmed, 0)
	return nil
}
