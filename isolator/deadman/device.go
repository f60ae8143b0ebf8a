package deadman

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Device is an armed dead-man. Its methods are not for concurrent use.
type Device struct {
	file     *os.File
	Path     string
	Identity string        // what the driver calls itself
	Timeout  time.Duration // what it really does, which may be more than what was asked for
	// NoWayOut: it cannot be disarmed until the machine is reset.
	NoWayOut bool
}

const softdog = "Software Watchdog" // what Linux's softdog calls itself

// Arm opens the device at path and sets its time-out; it counts from then on. Opening, setting, and the end of a process that has it open feed it once each:
// Arm only when MayFeed says so.
//
// Refused (Invalid) and disarmed again is a device which the mere end of the process that feeds it would disarm, and a softdog that anybody may disarm.
func Arm(path string, timeout time.Duration) (*Device, error) {
	if timeout < time.Second || timeout%time.Second != 0 {
		return nil, fault.New(fault.Invalid, "dead-man time-out %v: it must be whole seconds, at least one", timeout)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		class := fault.Unavailable
		if errors.Is(err, os.ErrPermission) {
			class = fault.Denied
		}
		return nil, fault.Wrap(class, err, "dead-man: open %s", path)
	}
	d := &Device{file: f, Path: path}
	if err := d.arm(timeout); err != nil {
		_ = d.Disarm() // as far as it can be
		_ = f.Close()
		return nil, err
	}
	return d, nil
}

func (d *Device) arm(timeout time.Duration) error {
	var info watchdogInfo
	if err := d.ioctl(wdiocGetSupport, unsafe.Pointer(&info)); err != nil {
		return fault.Wrap(fault.Invalid, err, "dead-man: %s is no watchdog device", d.Path)
	}
	d.Identity = string(bytes.TrimRight(info.identity[:], "\x00"))
	known := false
	d.NoWayOut, known = noWayOut(d.Path)
	switch {
	case d.Identity == softdog && !d.NoWayOut:
		return fault.New(fault.Invalid, "dead-man: %s is softdog, not known to be loaded with nowayout (found out: %v): load it with `modprobe softdog nowayout=1`", d.Path, known)
	case info.options&wdiofMagicClose == 0 && !d.NoWayOut:
		return fault.New(fault.Invalid, "dead-man: %s (%s) is disarmed when the process that feeds it dies: it has neither the magic close nor nowayout", d.Path, d.Identity)
	}
	seconds := int32(timeout / time.Second)
	if err := d.ioctl(wdiocSetTimeout, unsafe.Pointer(&seconds)); err != nil && info.options&wdiofSetTimeout != 0 {
		return fault.Wrap(fault.Invalid, err, "dead-man: %s (%s) does not take a time-out of %v", d.Path, d.Identity, timeout)
	}
	if err := d.ioctl(wdiocGetTimeout, unsafe.Pointer(&seconds)); err != nil || seconds <= 0 {
		return fault.Wrap(fault.Invalid, errors.Join(err, errors.New("its time-out is not known")), "dead-man: %s (%s)", d.Path, d.Identity)
	}
	d.Timeout = time.Duration(seconds) * time.Second
	return d.Feed()
}

// Feed starts the time-out anew.
func (d *Device) Feed() error {
	return fault.Wrap(fault.Unknown, d.ioctl(wdiocKeepAlive, nil), "dead-man: feed %s", d.Path)
}

// Disarm ends the counting by the magic close: only after a verified clean stop. Conflict for a device with nowayout, which stays open and must be
// fed on. The Device is closed on success.
func (d *Device) Disarm() error {
	if d.NoWayOut {
		return fault.New(fault.Conflict, "dead-man: %s (%s) was set up with nowayout and cannot be disarmed", d.Path, d.Identity)
	}
	if _, err := d.file.Write([]byte{'V'}); err != nil {
		return fault.Wrap(fault.Unknown, err, "dead-man: disarm %s", d.Path)
	}
	return fault.Wrap(fault.Unknown, d.file.Close(), "dead-man: close %s", d.Path)
}

// noWayOut asks sysfs whether the device can be disarmed. known is false where the kernel does not say.
func noWayOut(path string) (set, known bool) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, false
	}
	name := filepath.Base(real)
	if name == "watchdog" { // the old name of the first
		name = "watchdog0"
	}
	raw, err := os.ReadFile(filepath.Join(sysClass, name, "nowayout"))
	return strings.TrimSpace(string(raw)) == "1", err == nil
}

// sysClass is where the kernel describes its watchdogs.
var sysClass = "/sys/class/watchdog"

// The interface of linux/watchdog.h.
type watchdogInfo struct {
	options, firmware uint32
	identity          [32]byte
}

const (
	wdiocGetSupport = 0x80285700
	wdiocKeepAlive  = 0x80045705
	wdiocSetTimeout = 0xc0045706
	wdiocGetTimeout = 0x80045707
	wdiofMagicClose = 0x0100
	wdiofSetTimeout = 0x0080
)

func (d *Device) ioctl(request uintptr, arg unsafe.Pointer) error {
	var dummy int32 // the keep-alive names an argument that it does not use
	if arg == nil {
		arg = unsafe.Pointer(&dummy)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
