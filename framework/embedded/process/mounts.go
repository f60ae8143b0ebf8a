package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Bind is one directory or file that a task sees at another place.
type Bind struct {
	Source   string // absolute path on the host
	Target   string // path relative to the sandbox, or an absolute path of the host
	ReadOnly bool
}

// Mounts describes the mount namespace of one task. Only root can make one.
type Mounts struct {
	Sandbox string
	Binds   []Bind
	// Hide lists directories below which volumes of this machine are mounted. The task's copies of those mounts are
	// detached, all of them: a copied namespace must not keep a volume alive that somebody else unmounts, and what the task
	// may see of them it sees through its binds.
	Hide []string

	join int // handle of a namespace to join instead of making one
}

// enter gives the calling thread the mount namespace. Call it on a thread of its own only.
func (m *Mounts) enter() error {
	if m.join > 0 {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leave the common root directory: %w", err)
		}
		if err := unix.Setns(m.join, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("join the task's mount namespace: %w", err)
		}
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	// Nothing done here may be seen outside, while unmounts outside shall be seen here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mount namespace a slave: %w", err)
	}
	binds := append([]Bind(nil), m.Binds...)
	sort.SliceStable(binds, func(i, j int) bool { // data before data/sub
		return strings.Count(binds[i].Target, "/") < strings.Count(binds[j].Target, "/")
	})
	for _, b := range binds {
		if err := m.bind(b); err != nil {
			return err
		}
	}
	return m.hide(binds)
}

func (m *Mounts) bind(b Bind) error {
	source, err := unix.Open(b.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open '%s' to mount it: %w", b.Source, err)
	}
	defer unix.Close(source)
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		return fmt.Errorf("look at '%s' to mount it: %w", b.Source, err)
	}
	target, err := m.openTarget(b.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	// Through the open handles, so that nobody can put a link in between.
	if err := unix.Mount(handle(source), handle(target), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount '%s' at container path '%s': %w", b.Source, b.Target, err)
	}
	if !b.ReadOnly {
		return nil
	}
	over, err := m.openTarget(b.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR) // what is mounted there now
	if err != nil {
		return err
	}
	defer unix.Close(over)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err = unix.MountSetattr(over, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.12: only the mount itself
		err = unix.Mount("", handle(over), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		return fmt.Errorf("make container path '%s' read-only: %w", b.Target, err)
	}
	return nil
}

func handle(fd int) string { return fmt.Sprintf("/proc/thread-self/fd/%d", fd) }

// openTarget opens the mount point of a bind: inside the sandbox without following any link, made when it is not there,
// or an absolute path that must be there.
func (m *Mounts) openTarget(target string, dir bool) (int, error) {
	if filepath.IsAbs(target) {
		fd, err := unix.Open(target, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			//lint:ignore ST1005 Mesos's own text
			return -1, fmt.Errorf("Absolute container path '%s' does not exist", target)
		}
		if err != nil {
			return -1, fmt.Errorf("open absolute container path '%s': %w", target, err)
		}
		return fd, nil
	}
	at, err := unix.Open(m.Sandbox, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the sandbox: %w", err)
	}
	if !filepath.IsLocal(target) {
		unix.Close(at)
		return -1, fmt.Errorf("container path '%s' is outside of the sandbox", target)
	}
	parts := strings.Split(filepath.Clean(target), "/")
	for i, part := range parts {
		last := i == len(parts)-1
		next, err := openBelow(at, part, !last || dir)
		unix.Close(at)
		if err != nil {
			return -1, fmt.Errorf("container path '%s': %w", target, err)
		}
		at = next
	}
	return at, nil
}

// openBelow opens one path component below a directory, and makes it first when it is missing. A link is refused, wherever it leads.
func openBelow(at int, name string, dir bool) (int, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if dir {
		flags |= unix.O_DIRECTORY
	}
	fd, err := unix.Openat(at, name, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := makeBelow(at, name, dir); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		fd, err = unix.Openat(at, name, flags, 0)
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func makeBelow(at int, name string, dir bool) error {
	if dir {
		return unix.Mkdirat(at, name, 0o755)
	}
	fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// hide detaches the copies of mounts below the hidden directories. It spares the directories that lead to a place
// where something has been bound for the task.
func (m *Mounts) hide(binds []Bind) error {
	if len(m.Hide) == 0 {
		return nil
	}
	var kept []string
	for _, b := range binds {
		if filepath.IsAbs(b.Target) {
			kept = append(kept, b.Target)
		} else {
			kept = append(kept, filepath.Join(m.Sandbox, b.Target))
		}
	}
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	defer f.Close()
	infos, err := mountinfo.GetMountsFromReader(f, func(i *mountinfo.Info) (skip, stop bool) {
		for _, h := range m.Hide {
			if Under(i.Mountpoint, h) && i.Mountpoint != filepath.Clean(h) {
				return false, false
			}
		}
		return true, false
	})
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	for i := len(infos) - 1; i >= 0; i-- { // the newest first: what is mounted on a mount goes before it
		point := infos[i].Mountpoint
		spare := Under(m.Sandbox, point)
		for _, k := range kept {
			spare = spare || Under(k, point) || Under(point, k)
		}
		if spare {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("hide the mount '%s' from the task: %w", point, err)
		}
	}
	return nil
}

// Under says whether a clean absolute path is a directory or below it.
func Under(path, dir string) bool {
	path, dir = filepath.Clean(path), filepath.Clean(dir)
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
