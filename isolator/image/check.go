package image

import (
	"context"
	"encoding/binary"
	"os"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// How Check goes about it.
const (
	Look  = "look"  // changes nothing
	Preen = "preen" // replays the journal, looks everything over, and mends what can be mended without a doubt
	// PreenDirty is Preen that is content with the journal's replay where the file system knows of no errors.
	PreenDirty = "preen dirty"
	Repair     = "repair" // mends everything, whatever is lost by it
)

// Check looks over a file system that is not mounted, in an image that is locked by the file. clean says that nothing is wrong, or is any longer. A log of xfs that must be replayed
// first is not clean.
func (f FS) Check(ctx context.Context, image *os.File, how string) (clean bool, said string, err error) {
	argv := map[string][]string{Look: {"e2fsck", "-f", "-n"}, Preen: {"e2fsck", "-f", "-p"}, PreenDirty: {"e2fsck", "-p"}, Repair: {"e2fsck", "-f", "-y"}}[how]
	if f.Name == "xfs" {
		argv = map[string][]string{Look: {"xfs_repair", "-n"}, Preen: {"xfs_repair", "-n"}, PreenDirty: {"xfs_repair", "-n"}, Repair: {"xfs_repair"}}[how]
	}
	out, status, err := f.run(ctx, image.Name(), image, argv...)
	said = string(out)
	switch {
	case status < 0:
		return false, said, err
	case f.Name == "xfs":
		clean = status == 0
	case status <= 2: // 1: mended; 2: mended, and a mounted root file system would need a reboot
		clean = true
	case status&(8|16|32|128) != 0 && status&4 == 0:
		return false, said, fault.New(fault.Unavailable, "%s: %.300s", argv[0], said)
	}
	return clean, said, fault.Wrap(fault.Unknown, image.Sync(), "flush its image")
}

// State is what the head of an image tells of how the file system was left.
type State struct {
	Journal bool // it was not unmounted: its journal must be replayed. Never seen with xfs, whose head does not tell
	Errors  bool // the kernel found errors in it
}

// State reads the head.
func (i Image) State(image *os.File) (State, error) {
	head := make([]byte, headSize)
	if _, err := image.ReadAt(head, 0); err != nil {
		return State{}, fault.Wrap(fault.Unknown, err, "read its image")
	}
	if i.FS.Name != "ext4" {
		return State{}, nil
	}
	sb := head[1024:]
	return State{Journal: binary.LittleEndian.Uint32(sb[0x60:])&4 != 0, Errors: binary.LittleEndian.Uint16(sb[0x3a:])&2 != 0}, nil
}

// UUID is that of the file system in the image; false when the head holds none.
func (i Image) UUID(image *os.File) (id string, ok bool, err error) {
	head := make([]byte, headSize)
	if _, err := image.ReadAt(head, 0); err != nil {
		return "", false, fault.Wrap(fault.Unknown, err, "read its image")
	}
	id, ok = i.FS.identify(head)
	return id, ok, nil
}

// Replay mounts the file system in a locked image for a moment, which replays its journal.
func (i Image) Replay(ctx context.Context, image *os.File) error {
	device, err := i.Attached(ctx, "replay", image, i.FS.copyMount, func(string) error { return nil })
	if serr := i.letGo(ctx, device, image); err == nil {
		err = serr
	}
	return err
}
