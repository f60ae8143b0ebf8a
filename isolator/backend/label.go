package backend

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// label is the file volume.json beside a volume's data. It says which volume this is, so that a directory that was
// restored, renamed or left empty is never taken for it.
type Label struct {
	V        int          `json:"v"`
	UID      string       `json:"uid"`
	Name     string       `json:"name"`
	Cluster  string       `json:"cluster,omitempty"`
	Size     volume.Bytes `json:"size,omitempty"`
	Owner    string       `json:"owner,omitempty"`
	Mode     string       `json:"mode,omitempty"`
	Created  time.Time    `json:"created"`
	Former   []string     `json:"formerUids,omitempty"` // uids before adoptions, oldest first
	Removed  *time.Time   `json:"removed,omitempty"`    // set in the bin
	Instance string       `json:"node,omitempty"`       // uid of the node that made it
	FS       string       `json:"fs,omitempty"`         // of the volume's own file system, its type
	FSUUID   string       `json:"fsUuid,omitempty"`     // and its UUID
	Grow     volume.Bytes `json:"grow,omitempty"`       // the size that it is about to get: begun, or left to the next mount
	Resizing bool         `json:"resizing,omitempty"`   // a program that keeps no journal grows it
	Snapshot string       `json:"snapshot,omitempty"`   // its name, in the label of a snapshot
	Taken    *time.Time   `json:"taken,omitempty"`      // and when that was taken
	Fsck     string       `json:"fsck,omitempty"`       // policy, "" for the pool's
	Open     bool         `json:"open,omitempty"`       // mounted, where the file system itself does not tell and it matters
	Encrypt  *encryption  `json:"encrypt,omitempty"`
}

const (
	LabelFile = "volume.json"
	labelMax  = 64 << 10
)

// readLabel reads the label in a volume's directory. NotFound when the directory does not exist; a directory
// without a good label is Conflict, since nobody knows whose it is.
func ReadLabel(dir string) (Label, error) {
	f, err := openLabel(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, derr := os.Lstat(dir); errors.Is(derr, fs.ErrNotExist) {
			return Label{}, fault.New(fault.NotFound, "volume %s does not exist", filepath.Base(dir))
		}
		f, err = openLabel(dir) // it may have appeared just now
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Label{}, fault.New(fault.Conflict, "directory %s has no %s: it is not a volume of this pool", dir, LabelFile)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, errNoFile):
		return Label{}, fault.Wrap(fault.Conflict, err, "%s is no volume of this pool: neither it nor its label may be a link, and both must be what they are called", dir)
	case err != nil:
		return Label{}, fault.Wrap(fault.Unknown, err, "read label of %s", dir)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, labelMax+1))
	if err != nil {
		return Label{}, fault.Wrap(fault.Unknown, err, "read label of %s", dir)
	}
	return decodeLabel(raw, dir)
}

var errNoFile = errors.New("it is not a regular file")

// openLabel follows no link, neither to a volume nor to a label.
func openLabel(dir string) (*os.File, error) {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(d)
	fd, err := unix.Openat(d, LabelFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), filepath.Join(dir, LabelFile))
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		_ = f.Close()
		return nil, errors.Join(err, errNoFile)
	}
	return f, nil
}

// decodeLabel reads a label as hostile: what it says becomes part of paths and of what is done.
func decodeLabel(raw []byte, dir string) (l Label, err error) {
	if len(raw) > labelMax {
		return Label{}, fault.New(fault.Conflict, "label in %s is larger than %d bytes", dir, labelMax)
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return Label{}, fault.Wrap(fault.Conflict, err, "label in %s", dir)
	}
	if l.V != 1 {
		return Label{}, fault.New(fault.Conflict, "label in %s has version %d, this program knows 1", dir, l.V)
	}
	if err := FirstError(CheckUID(l.UID), volume.CheckName(l.Name)); err != nil {
		return Label{}, fault.New(fault.Conflict, "label in %s: %v", dir, err)
	}
	if l.Snapshot != "" && volume.CheckName(l.Snapshot) != nil {
		return Label{}, fault.New(fault.Conflict, "label in %s: %q is no name of a snapshot", dir, l.Snapshot)
	}
	if l.Size < 0 || l.Grow < 0 || (l.Grow > 0 && l.Grow < l.Size) {
		return Label{}, fault.New(fault.Conflict, "label in %s: size %d and growth to %d cannot be", dir, l.Size, l.Grow)
	}
	return l, nil
}

// checkUID admits what can be part of a file's name.
func CheckUID(uid string) error {
	if uid == "" || len(uid) > 128 {
		return fault.New(fault.Invalid, "uid %.40q has not 1 to 128 characters", uid)
	}
	for _, c := range []byte(uid) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != ':' {
			return fault.New(fault.Invalid, "uid %.40q has characters beside letters, digits, -, _ and :", uid)
		}
	}
	return nil
}

// writeLabel replaces the label so that after a crash either the old or the new one is there.
func WriteLabel(dir string, l Label) error {
	raw, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode label of %s", dir)
	}
	f, err := os.CreateTemp(dir, "."+LabelFile+"-")
	if err != nil {
		return fault.Wrap(WriteClass(err), err, "write label of %s", dir)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, LabelFile))
	}
	if err == nil {
		err = SyncDir(dir)
	}
	return fault.Wrap(WriteClass(err), err, "write label of %s", dir)
}
