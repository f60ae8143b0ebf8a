package image

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ioctl[T any](f *os.File, call uint, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(call), uintptr(unsafe.Pointer(arg)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}
