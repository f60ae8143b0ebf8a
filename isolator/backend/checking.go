package backend

import (
	"cmp"
	"context"
	"os"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/image"
)

// Check holds the image for itself.
func (b *loopBack) Check(ctx context.Context, dir, target string, l Label, repair bool) (bool, string, error) {
	i := b.image(dir, target)
	if at, err := b.p.MountedAt(l.Name); err != nil || at {
		return false, "", FirstError(err, fault.New(fault.Conflict, "it is mounted on this node"))
	}
	file, err := i.Open(ctx)
	if err != nil {
		return false, "", err
	}
	defer file.Close()
	if id, ok, err := i.UUID(file); err != nil || (ok && id != l.FSUUID) {
		return false, "", FirstError(err, fault.New(fault.Conflict, "its image holds file system %s, its label says %s", id, l.FSUUID))
	}
	if !repair {
		clean, said, err := b.fs.Check(ctx, file, image.Look)
		return clean, brief(said), err
	}
	replayed := i.Replay(ctx, file) // xfs_repair refuses a log that was not replayed; what cannot be mounted it must do without
	_, said, err := b.fs.Check(ctx, file, image.Repair)
	if err != nil {
		return false, "", err
	}
	if replayed != nil {
		said = "before: " + replayed.Error() + "\n" + said
	}
	clean, again, err := b.fs.Check(ctx, file, image.Look)
	if err != nil || !clean {
		return false, brief(said + "\nafterwards: " + again), err
	}
	if l.Open {
		l.Open = false
		err = WriteLabel(dir, l)
	}
	return true, brief(said), err
}

// brief keeps the end of a report, where the sum is.
func brief(said string) string {
	const most = 8 << 10
	if len(said) > most {
		said = "…" + said[len(said)-most:]
	}
	return said
}

// policy is the volume's fsck policy, or else the pool's.
func (b *loopBack) policy(l Label) string {
	return cmp.Or(l.Fsck, b.p.Fsck, FsckAuto)
}

// preen does what the policy says about a file system that was not unmounted, before it is mounted. The image is locked by the file.
func (b *loopBack) preen(ctx context.Context, i image.Image, file *os.File, dir string, l *Label) error {
	state, err := i.State(file)
	if err != nil {
		return err
	}
	dirty := state.Journal || state.Errors || l.Open
	switch b.policy(*l) {
	case FsckAsk:
		if dirty {
			return fault.New(fault.Conflict, "its %s was not unmounted, and its fsck policy is ask: mount it after a check with repair, or %s", b.fs.Name, i.Remedy())
		}
		if b.fs.Name == "xfs" { // whose head does not tell
			l.Open = true
			return WriteLabel(dir, *l)
		}
	case FsckAuto:
		if !state.Journal && !state.Errors {
			return nil // also every xfs: its mount replays the log
		}
		clean, said, err := b.fs.Check(ctx, file, image.PreenDirty)
		if err == nil && !clean {
			err = fault.New(fault.Conflict, "its %s is damaged beyond what is mended without asking (%.300s); %s", b.fs.Name, said, i.Remedy())
		}
		return err
	}
	return nil
}
