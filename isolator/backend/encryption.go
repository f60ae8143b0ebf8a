package backend

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/crypt"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// encryption is what a label says of an encrypted volume. The key is derived from the pool's master key and Salt, which is the uid that the first volume of this content was made with: clones have
// their source's, since their files are encrypted with its key.
type encryption struct {
	Kind string `json:"kind"` // fscrypt-v2
	Salt string `json:"salt"`
	Key  string `json:"key"` // the key's identifier
}

const fscryptV2 = "fscrypt-v2"

// Encrypted tells whether the content of a volume is.
func (l Label) Encrypted() bool { return l.Encrypt != nil }

var errNoEncryption = fault.New(fault.Invalid, "option encrypt: only pools with backend=loop and fs=ext4 can encrypt volumes")

// judgeEncryption notes the wish for an encrypted volume in its label, or says why it cannot be.
func (b *loopBack) judgeEncryption(wish *bool, l *Label, clone bool) error {
	switch {
	case wish == nil || (!*wish && !clone):
		return nil
	case clone:
		return fault.New(fault.Invalid, "option encrypt: a clone is encrypted if its source is")
	case b.fs.Name != "ext4":
		return errNoEncryption
	case !b.p.Key.Given():
		return fault.New(fault.Invalid, "option encrypt: pool %s has no key (--pool …,key-file=FILE or key-command=PROGRAM)", b.p.Name)
	}
	l.Encrypt = &encryption{Kind: fscryptV2, Salt: l.UID}
	return nil
}

// protect has the new, empty data directory encrypted, and completes the label by the key's identifier. It does nothing for a volume that is not encrypted.
func (b *loopBack) protect(ctx context.Context, data string, l *Label) error {
	if l.Encrypt == nil {
		return nil
	}
	key, err := b.p.Key.Key(ctx, l.Encrypt.Salt)
	if err != nil {
		return err
	}
	defer key.Forget()
	l.Encrypt.Key = key.ID()
	if err := crypt.Unlock(data, key); err != nil {
		return err
	}
	return crypt.Protect(data, key)
}

// key gives the key of an encrypted volume, nil for others. Denied when the pool's key is another than the volume was made with.
func (b *loopBack) key(ctx context.Context, l Label) (*crypt.Key, error) {
	e := l.Encrypt
	if e == nil {
		return nil, nil
	}
	if e.Kind != fscryptV2 {
		return nil, fault.New(fault.Conflict, "it is encrypted by %.40q, which this program does not know", e.Kind)
	}
	if !b.p.Key.Given() {
		return nil, fault.New(fault.Unavailable, "it is encrypted, and pool %s was given no key (--pool …,key-file=FILE or key-command=PROGRAM)", b.p.Name)
	}
	k, err := b.p.Key.Key(ctx, e.Salt)
	if err != nil {
		return nil, err
	}
	if id := k.ID(); id != e.Key {
		k.Forget()
		return nil, fault.New(fault.Denied, "wrong key: the key of pool %s gives this volume key %s, and it was encrypted with key %s", b.p.Name, id, e.Key)
	}
	return k, nil
}

// unlock gives the key to a mounted file system, after a look that the directory is encrypted with just that: an image that was exchanged for one
// in the clear is noticed.
func unlock(data string, key *crypt.Key) error {
	if key == nil {
		return nil
	}
	id, err := crypt.KeyOf(data)
	if err != nil {
		return err
	}
	if id != key.ID() {
		return fault.New(fault.Conflict, "its data directory is encrypted with key %q, its label says %s", id, key.ID())
	}
	return crypt.Unlock(data, key)
}

// lockAway unmounts an encrypted volume's target and takes the key away while the file system is still there, which a mount that nobody else sees keeps
// alive for so long. Where something still has files open the volume does not become unmounted, but nobody opens more.
func lockAway(ctx context.Context, target, id string) error {
	if err := crypt.CheckID(id); err != nil {
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, target, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "look at %s", target)
	}
	tree := os.NewFile(uintptr(fd), target)
	defer tree.Close()
	if err := mount.Hide(ctx, target); err != nil {
		return err
	}
	// What fails here (a file system that was shut down) the end of the file system does, too, which the caller waits for.
	_ = mount.Within(ctx, "lock "+target, func() error {
		inside, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		dir := os.NewFile(uintptr(inside), target)
		defer dir.Close()
		if err := unix.Syncfs(inside); err != nil { // what is dirty cannot be locked
			return err
		}
		_, err = crypt.Lock(dir, id)
		return err
	})
	return nil
}
