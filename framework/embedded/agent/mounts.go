package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/framework/embedded/process"
)

// shareDir makes the agent's directory a shared mount of its own, when this program may mount: what is mounted and unmounted below it afterwards
// reaches the mount namespaces of the tasks, as with Mesos's work directory. Doing it twice is doing it once.
func (a *Agent) shareDir() error {
	if !a.mounts {
		return nil
	}
	mounts, err := below(a.cfg.Dir)
	if err != nil {
		return err
	}
	mounted := false
	for _, m := range mounts {
		mounted = mounted || m == a.cfg.Dir
	}
	if !mounted {
		if err := unix.Mount(a.cfg.Dir, a.cfg.Dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("agent: bind %s on itself: %w", a.cfg.Dir, err)
		}
	}
	// Private first: below a shared mount the copy would be its peer, and every mount in it would show up twice.
	for _, flag := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if mounted && flag == unix.MS_PRIVATE {
			continue
		}
		if err := unix.Mount("", a.cfg.Dir, "", flag, ""); err != nil {
			return fmt.Errorf("agent: share the mount %s: %w", a.cfg.Dir, err)
		}
	}
	return nil
}

// below lists the mount points that are a directory or below it, the deepest and newest last.
func below(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return !process.Under(i.Mountpoint, dir), false })
	if err != nil {
		return nil, fmt.Errorf("agent: read the mounts: %w", err)
	}
	var out []string
	for _, i := range infos {
		out = append(out, i.Mountpoint)
	}
	return out, nil
}

// Cleanup unmounts everything at and below an agent's directory, lazily where something is still in use. It is for the time when no process of the agent is
// left: after PowerOff ("the machine is off"), at the end of a supervisor, and before the start after a crash. Without root there is nothing to do.
func Cleanup(dir string) error {
	if os.Geteuid() != 0 || dir == "" {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	for try := 0; try < 64; try++ { // mounts can be stacked
		mounts, err := below(dir)
		if err != nil || len(mounts) == 0 {
			return err
		}
		var errs []error
		for i := len(mounts) - 1; i >= 0; i-- {
			err := unix.Unmount(mounts[i], unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EBUSY) {
				err = unix.Unmount(mounts[i], unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
			}
			if err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fmt.Errorf("agent: unmount %s: %w", mounts[i], err))
			}
		}
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
	}
	return fmt.Errorf("agent: mounts below %s do not go away", dir)
}
