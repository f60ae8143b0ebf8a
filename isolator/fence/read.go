package fence

import (
	"bytes"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// A look at all processes reads some thousand small files of /proc, so what os does beside the system calls counts here.

// buffers are what one worker of a scan reads into.
type buffers struct {
	link [4096]byte
	maps []byte
}

// readlink gives what a link of /proc says.
func (b *buffers) readlink(dir int, path string) (string, error) {
	n, err := again(func() (int, error) { return unix.Readlinkat(dir, path, b.link[:]) })
	if err != nil {
		return "", err
	}
	return string(b.link[:n]), nil
}

// mapped calls f with the files of certain devices that a process has mapped; those that follow each other are told once.
func (b *buffers) mapped(dir int, path string, device func(major, minor uint32) bool, f func(path string)) {
	fd, err := openAt(dir, path)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if b.maps == nil {
		b.maps = make([]byte, 64<<10)
	}
	var last []byte
	kept := 0 // the beginning of a line whose end was not read yet
	for {
		n, err := again(func() (int, error) { return unix.Read(fd, b.maps[kept:]) })
		if n <= 0 || err != nil {
			return
		}
		text := b.maps[:kept+n]
		for {
			end := bytes.IndexByte(text, '\n')
			if end < 0 {
				break
			}
			line := text[:end]
			text = text[end+1:]
			if i := bytes.IndexByte(line, '/'); i >= 0 && !bytes.Equal(line[i:], last) && device(deviceOf(line)) {
				last = append(last[:0], line[i:]...)
				f(unescape(string(last)))
			}
		}
		if kept = copy(b.maps, text); kept == len(b.maps) {
			kept = 0 // no line is that long
		}
	}
}

// deviceOf reads the fourth field of a line of maps, two hexadecimal numbers.
func deviceOf(line []byte) (major, minor uint32) {
	for range 3 {
		line = line[bytes.IndexByte(line, ' ')+1:]
	}
	n := &major
	for _, c := range line {
		switch {
		case c == ':':
			n = &minor
		case c >= '0' && c <= '9':
			*n = *n<<4 | uint32(c-'0')
		case c >= 'a' && c <= 'f':
			*n = *n<<4 | uint32(c-'a'+10)
		default:
			return major, minor
		}
	}
	return major, minor
}

// readWhole reads a file of /proc.
func readWhole(dir int, path string) ([]byte, error) {
	fd, err := openAt(dir, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	out := make([]byte, 0, 1024)
	for {
		if len(out) == cap(out) {
			bigger := make([]byte, len(out), 4*cap(out))
			copy(bigger, out)
			out = bigger
		}
		n, err := again(func() (int, error) { return unix.Read(fd, out[len(out):cap(out)]) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return out, nil
		}
		if out = out[:len(out)+n]; len(out) > 256<<20 {
			return nil, io.ErrShortBuffer
		}
	}
}

// readNames lists a directory of /proc.
func readNames(dir int, path string) ([]string, error) {
	fd, err := openAt(dir, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 8<<10)
	for {
		n, err := again(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return names, err
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func openAt(dir int, path string) (int, error) {
	return again(func() (int, error) { return unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
}

// again repeats a call that a signal has interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
