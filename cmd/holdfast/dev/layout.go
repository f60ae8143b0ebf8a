package dev

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Layout is where a cluster keeps its things. Sockets live elsewhere, under a short path, because a unix socket's path is
// limited to 107 bytes and the directory's may be longer.
type Layout struct {
	Dir     string // absolute, symbolic links resolved
	Sockets string // <runtime dir>/<10 hex of Dir>
}

// DefaultDir is XDG_DATA_HOME/holdfast/dev, or ~/.local/share/holdfast/dev.
func DefaultDir() (string, error) {
	if base := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "holdfast", "dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "no home directory: choose a directory with --dir")
	}
	return filepath.Join(home, ".local", "share", "holdfast", "dev"), nil
}

// NewLayout makes the directory if need be and tells where everything goes. Nothing else is made yet.
func NewLayout(dir string) (Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Layout{}, fault.Wrap(fault.Invalid, err, "directory %s", dir)
	}
	if err := os.MkdirAll(abs, 0o711); err != nil {
		return Layout{}, fault.Wrap(fault.Unavailable, err, "make the state directory %s (choose another with --dir)", abs)
	}
	return existingLayout(abs)
}

// existingLayout is NewLayout for a directory that must be there already.
func existingLayout(dir string) (Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Layout{}, fault.Wrap(fault.Invalid, err, "directory %s", dir)
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return Layout{}, fault.New(fault.NotFound, "no cluster was ever started in %s: is --dir right?", abs)
	}
	if err != nil {
		return Layout{}, fault.Wrap(fault.Unavailable, err, "directory %s", abs)
	}
	base, err := socketBase()
	if err != nil {
		return Layout{}, err
	}
	sum := sha256.Sum256([]byte(real))
	return Layout{Dir: real, Sockets: filepath.Join(base, hex.EncodeToString(sum[:5]))}, nil
}

// socketBase finds a short directory that only this user can write to.
func socketBase() (string, error) {
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) && len(d) <= 60 && privateDir(d) == nil {
		base := filepath.Join(d, "holdfast")
		if os.Mkdir(base, 0o700) == nil || privateDir(base) == nil {
			return base, nil
		}
	}
	base := filepath.Join("/tmp", fmt.Sprintf("holdfast-%d", os.Geteuid()))
	if err := os.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fault.Wrap(fault.Unavailable, err, "make the socket directory %s", base)
	}
	if err := privateDir(base); err != nil {
		return "", fault.Wrap(fault.Denied, err, "socket directory")
	}
	return base, nil
}

// privateDir checks that path is a directory of ours that nobody else can write to; /tmp is open to all.
func privateDir(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case !ok || int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to somebody else", path)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is open to other users (mode %v): chmod 700 it", path, info.Mode().Perm())
	}
	return nil
}

// prepare makes the directories and proves that they can be written to, durably: a full disk is best met here.
func (l Layout) prepare() error {
	for _, d := range []string{l.logs(), l.run(), l.Pool(), l.nodes(), l.engine(), l.framework(), l.authorityDir()} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return fault.Wrap(fault.Unavailable, err, "state directory %s cannot be written to", l.Dir)
		}
	}
	if err := os.MkdirAll(l.Sockets, 0o700); err != nil {
		return fault.Wrap(fault.Unavailable, err, "make the socket directory %s", l.Sockets)
	}
	probe := filepath.Join(l.run(), "probe")
	defer os.Remove(probe)
	f, err := os.OpenFile(probe, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "state directory %s cannot be written to", l.Dir)
	}
	defer f.Close()
	_, err = f.Write(make([]byte, 1<<20))
	if err == nil {
		err = f.Sync()
	}
	return fault.Wrap(fault.Unavailable, err, "state directory %s has no room: free some, or choose another with --dir", l.Dir)
}

func (l Layout) logs() string         { return filepath.Join(l.Dir, "logs") }
func (l Layout) run() string          { return filepath.Join(l.Dir, "run") }
func (l Layout) nodes() string        { return filepath.Join(l.Dir, "nodes") }
func (l Layout) engine() string       { return filepath.Join(l.Dir, "engine") }
func (l Layout) framework() string    { return filepath.Join(l.Dir, "framework") }
func (l Layout) authorityDir() string { return filepath.Join(l.Dir, "authority") }

// Pool is the directory that all nodes' pool drivers share: it plays shared storage.
func (l Layout) Pool() string { return filepath.Join(l.Dir, "pool") }

// Log is the log file of a child.
func (l Layout) Log(name string) string { return filepath.Join(l.logs(), name+".log") }

// Node is a node's own directory, its local disk.
func (l Layout) Node(name string) string { return filepath.Join(l.nodes(), name) }

func (l Layout) lockFile() string           { return filepath.Join(l.Dir, "lock") }
func (l Layout) infoFile() string           { return filepath.Join(l.run(), "dev.json") }
func (l Layout) controlSocket() string      { return filepath.Join(l.Sockets, "control") }
func (l Layout) frameworkAuthority() string { return filepath.Join(l.Sockets, "authority") }
func (l Layout) nodeAuthority(name string) string {
	return filepath.Join(l.Sockets, name+"-authority")
}
func (l Layout) nodeSocket(name string) string { return filepath.Join(l.Sockets, name) }

// mark is put into the environment of every child, so that what a killed supervisor leaves behind can be told apart from
// everything else on the machine.
func (l Layout) mark() string { return "HOLDFAST_DEV=" + filepath.Base(l.Sockets) }

// taskMark is in the environment of every task: its sandbox lies below the nodes' directories.
func (l Layout) taskMark() string { return "MESOS_SANDBOX=" + l.nodes() }

// lock takes the directory for this process. The lock goes with the process, however it ends.
func (l Layout) lock() (*os.File, error) {
	f, err := os.OpenFile(l.lockFile(), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "state directory %s cannot be written to (choose another with --dir)", l.Dir)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "a `holdfast dev` runs on %s already: stop it, or choose another --dir and --port", l.Dir)
		}
		return nil, fault.Wrap(fault.Unavailable, err, "lock %s", l.lockFile())
	}
	return f, nil
}
