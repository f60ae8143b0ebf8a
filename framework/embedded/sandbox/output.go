package sandbox

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// OutputLimit is how large stdout and stderr of a task grow, each: a file that has reached it is renamed to
// `stdout.1` (one old file is kept) and a new one begun. A task's sandbox holds at most four times this of what it printed.
const OutputLimit = 8 << 20

// Output carries what a task prints from a pipe into a bounded file of its sandbox.
type Output struct {
	Write *os.File // hand this to the task, then call Begin
	read  *os.File
	root  *os.Root
	name  string
	user  *syscall.Credential
	limit int64
	done  chan struct{}
	once  sync.Once
}

// NewOutput makes the file and the pipe. A task that runs as another user may open /dev/stdout again: the pipe is that user's.
func NewOutput(dir, name string, user *syscall.Credential) (*Output, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		root.Close()
		return nil, err
	}
	o := &Output{Write: w, read: r, root: root, name: name, user: user, limit: OutputLimit, done: make(chan struct{})}
	f, err := o.open()
	if err != nil {
		o.Discard()
		return nil, err
	}
	f.Close()
	if user != nil {
		_ = w.Chown(int(user.Uid), int(user.Gid))
	}
	return o, nil
}

// open opens the file for appending. What is there must be a plain file: the directory belongs to the task, which may have put
// a link or a FIFO in the file's place.
func (o *Output) open() (*os.File, error) {
	f, err := o.root.OpenFile(o.name, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: filepath.Join(o.root.Name(), o.name), Err: syscall.EINVAL}
	}
	if o.user != nil {
		_ = f.Chown(int(o.user.Uid), int(o.user.Gid))
	}
	return f, nil
}

// Begin closes this program's writing end and copies until the last writer has closed its own.
func (o *Output) Begin() {
	o.Write.Close()
	go o.copy()
}

// Finish gives what has been printed up to a second to reach the file, and closes everything. Call it when the task is over.
func (o *Output) Finish() {
	_ = o.read.SetReadDeadline(time.Now().Add(time.Second))
	<-o.done
}

// Discard gives up an output that was never begun.
func (o *Output) Discard() {
	o.once.Do(func() {
		o.Write.Close()
		o.read.Close()
		o.root.Close()
	})
}

func (o *Output) copy() {
	defer close(o.done)
	defer o.root.Close()
	defer o.read.Close()
	f, err := o.open()
	if err != nil {
		f = nil // nowhere to write, and the task must not block for it
	}
	var size int64
	if f != nil {
		if st, err := f.Stat(); err == nil {
			size = st.Size()
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := o.read.Read(buf)
		if n > 0 && f != nil {
			if size > 0 && size+int64(n) > o.limit {
				f, size = o.rotate(f), 0
			}
			if f != nil {
				written, _ := f.Write(buf[:n]) // a full disk loses output, never the task
				size += int64(written)
			}
		}
		if err != nil {
			break
		}
	}
	if f != nil {
		f.Close()
	}
}

func (o *Output) rotate(f *os.File) *os.File {
	f.Close()
	if err := o.root.Rename(o.name, o.name+".1"); err != nil {
		_ = o.root.Remove(o.name)
	}
	f, err := o.open()
	if err != nil {
		return nil
	}
	return f
}
