// Package deadmantest plays a watchdog device for tests: a file, served by FUSE, with the ioctls and the habits of Linux's watchdog devices. What it does
// instead of resetting the machine is the test's to say: killing a pid namespace in which a node is played comes near to it. It is a stand-in: it shows that
// the device is armed, fed and starved as it should be, not that a real machine comes down.
package deadmantest

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Device is a stand-in. Change its first fields before anybody opens it.
type Device struct {
	Path     string // of the file to open
	Identity string
	// NoMagic is a device that anybody's close stops; NoWayOut one that nothing stops (there is no sysfs for it, so nobody can know).
	NoMagic, NoWayOut bool
	// RoundUp makes time-outs multiples of itself, as coarse hardware does.
	RoundUp time.Duration

	reset func()
	fuse  int

	mu      sync.Mutex
	timeout time.Duration
	open    bool
	running bool
	magic   bool
	fed     time.Time
	feeds   int
	resets  int
}

// New serves a device until the test ends; reset is called, once per time-out, from a goroutine.
func New(t testing.TB, reset func()) *Device {
	t.Helper()
	d := &Device{Path: filepath.Join(t.TempDir(), "watchdog"), Identity: "Holdfast stand-in", reset: reset, timeout: time.Minute}
	if err := os.WriteFile(d.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.fuse, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatalf("the stand-in needs /dev/fuse: %v", err)
	}
	if err := unix.Mount("deadman", d.Path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, "fd="+itoa(d.fuse)+",rootmode=100000,user_id=0,group_id=0"); err != nil {
		t.Fatalf("mount the stand-in: %v", err)
	}
	done := make(chan struct{})
	go d.serve()
	go d.count(done)
	t.Cleanup(func() {
		close(done)
		_ = unix.Unmount(d.Path, unix.MNT_DETACH)
	})
	return d
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// Running tells whether the time-out counts, Feeds how often it was begun, Resets how often it came.
func (d *Device) Running() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.running }

// Feeds counts feedings, those of opening, setting and closing among them.
func (d *Device) Feeds() int { d.mu.Lock(); defer d.mu.Unlock(); return d.feeds }

// Resets counts what would have been resets.
func (d *Device) Resets() int { d.mu.Lock(); defer d.mu.Unlock(); return d.resets }

func (d *Device) count(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
		d.mu.Lock()
		over := d.running && time.Since(d.fed) >= d.timeout
		if over {
			d.running = false
			d.resets++
		}
		d.mu.Unlock()
		if over && d.reset != nil {
			d.reset()
		}
	}
}

func (d *Device) feed() { d.fed = time.Now(); d.feeds++ }

// The parts of linux/fuse.h that a single file needs.
const (
	opForget, opGetattr, opOpen, opWrite, opStatfs, opRelease = 2, 3, 14, 16, 17, 18
	opFlush, opInit, opInterrupt, opDestroy, opIoctl          = 25, 26, 36, 38, 39
)

func (d *Device) serve() {
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(d.fuse, buf)
		if err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT {
			continue
		}
		if err != nil || n < 40 {
			_ = unix.Close(d.fuse)
			return
		}
		le := binary.LittleEndian
		op, unique, body := le.Uint32(buf[4:]), le.Uint64(buf[8:]), buf[40:n]
		if op == opForget || op == opInterrupt {
			continue
		}
		out, errno := d.answer(op, body)
		reply := make([]byte, 16, 16+len(out))
		if errno != 0 {
			out = nil
		}
		le.PutUint32(reply, uint32(16+len(out)))
		le.PutUint32(reply[4:], uint32(-int32(errno)))
		le.PutUint64(reply[8:], unique)
		_, _ = unix.Write(d.fuse, append(reply, out...))
	}
}

func (d *Device) answer(op uint32, in []byte) (out []byte, errno unix.Errno) {
	le := binary.LittleEndian
	d.mu.Lock()
	defer d.mu.Unlock()
	switch op {
	case opInit:
		out = make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[20:], 4096)
	case opGetattr:
		out = make([]byte, 104)
		le.PutUint64(out[16:], 1)
		le.PutUint32(out[16+60:], unix.S_IFREG|0o600)
		le.PutUint32(out[16+64:], 1)
		le.PutUint32(out[16+80:], 4096)
	case opOpen:
		if d.open {
			return nil, unix.EBUSY
		}
		d.open, d.running, d.magic = true, true, false
		d.feed()
		out = make([]byte, 16)
		le.PutUint32(out[8:], 1) // direct I/O
	case opWrite:
		data := in[40:]
		d.magic = false
		for _, b := range data {
			d.magic = d.magic || b == 'V'
		}
		d.feed()
		out = make([]byte, 8)
		le.PutUint32(out, uint32(len(data)))
	case opIoctl:
		return d.ioctl(le.Uint32(in[12:]), in[32:])
	case opRelease:
		d.open = false
		if d.running && (d.magic || d.NoMagic) && !d.NoWayOut {
			d.running = false
		} else {
			d.feed() // "watchdog did not stop!"
		}
	case opFlush, opDestroy:
	default:
		return nil, unix.ENOSYS
	}
	return out, 0
}

func (d *Device) ioctl(request uint32, in []byte) (out []byte, errno unix.Errno) {
	le := binary.LittleEndian
	out = make([]byte, 16, 64)
	switch request {
	case 0x80285700: // GETSUPPORT
		info := make([]byte, 40)
		options := uint32(0x8000 | 0x0080 | 0x0100)
		if d.NoMagic {
			options &^= 0x0100
		}
		le.PutUint32(info, options)
		copy(info[8:], d.Identity)
		return append(out, info...), 0
	case 0x80045705: // KEEPALIVE
		d.feed()
		return append(out, 0, 0, 0, 0), 0
	case 0xc0045706, 0x80045707: // SETTIMEOUT, GETTIMEOUT
		if request == 0xc0045706 {
			d.timeout = time.Duration(le.Uint32(in)) * time.Second
			if d.RoundUp > 0 {
				d.timeout = (d.timeout + d.RoundUp - 1) / d.RoundUp * d.RoundUp
			}
			d.feed()
		}
		return le.AppendUint32(out, uint32(d.timeout/time.Second)), 0
	}
	return nil, unix.ENOTTY
}
