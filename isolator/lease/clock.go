package lease

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is a clock that never goes back, and its timers. Deadlines are instants on it: the time since its origin, which for the
// system's clocks is the machine's boot, so that processes of one boot can compare them.
type Clock interface {
	Now() time.Duration
	// After gives a channel that receives, or is closed, once d has passed, and a function that gives the timer up.
	After(d time.Duration) (<-chan struct{}, func())
}

// Boottime is CLOCK_BOOTTIME, which goes on while the machine sleeps: the clock of holders. Its timers fire at
// once when a sleep ends that was longer than they.
func Boottime() Clock { return systemClock(unix.CLOCK_BOOTTIME) }

// Monotonic is CLOCK_MONOTONIC, which stands still while the machine sleeps: the clock of takers, and of both in `holdfast dev`.
func Monotonic() Clock { return systemClock(unix.CLOCK_MONOTONIC) }

type systemClock int32

func (c systemClock) Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(c), &ts); err != nil {
		panic("lease: the kernel has no such clock: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

func (c systemClock) After(d time.Duration) (<-chan struct{}, func()) {
	if c == unix.CLOCK_BOOTTIME {
		if ch, stop, err := afterBoottime(d); err == nil {
			return ch, stop
		}
		// Without a timerfd a sleeping machine may fire late by its sleep; look again often instead.
		d = min(d, 200*time.Millisecond)
	}
	ch := make(chan struct{})
	t := time.AfterFunc(max(d, 0), func() { close(ch) })
	return ch, func() { t.Stop() }
}

func afterBoottime(d time.Duration) (<-chan struct{}, func(), error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	if err := unix.TimerfdSettime(fd, 0, &spec, nil); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	ch := make(chan struct{})
	var once sync.Once
	stop := func() { once.Do(func() { _ = f.Close() }) }
	go func() {
		var expirations [8]byte
		if _, err := f.Read(expirations[:]); err == nil { // an error means that it was given up
			close(ch)
		}
		stop()
	}()
	return ch, stop, nil
}
