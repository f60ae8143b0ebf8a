package mount

import (
	"context"

	"golang.org/x/sys/unix"
)

// The file systems that no two machines can have mounted at once, by their magic numbers (statfs(2)).
var ofOneMachine = map[int64]bool{unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true}

// SameLocal tells whether path lies on the very file system that dir lies on, and that is one of this machine's own: what was written there is seen by
// whoever mounts path next, flushed or not, as long as the machine lives. False also when it cannot be told before ctx ends.
func SameLocal(ctx context.Context, path, dir string) bool {
	same := make(chan bool, 1)
	err := Within(ctx, "look at "+path, func() error {
		var fs unix.Statfs_t
		var a, b unix.Stat_t
		if err := unix.Stat(path, &a); err != nil {
			return err
		}
		if err := unix.Stat(dir, &b); err != nil {
			return err
		}
		if err := unix.Statfs(path, &fs); err != nil {
			return err
		}
		same <- a.Dev == b.Dev && ofOneMachine[int64(fs.Type)]
		return nil
	})
	return err == nil && <-same
}
