package backend

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// ownership is whose a new volume's root directory becomes; -1 and 0 leave things alone.
type Ownership struct {
	uid, gid int
	mode     fs.FileMode
	setMode  bool
}

// parseOwnership reads "user", "user:group" (names or numbers) and an octal mode.
func ParseOwnership(owner, mode string) (Ownership, error) {
	o := Ownership{uid: -1, gid: -1}
	if owner != "" {
		u, g, _ := strings.Cut(owner, ":")
		if u != "" {
			if err := o.setUser(u); err != nil {
				return o, err
			}
		}
		if g != "" {
			if err := o.setGroup(g); err != nil {
				return o, err
			}
		}
	}
	if mode != "" {
		n, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || n > 0o7777 {
			return o, fault.New(fault.Invalid, "mode %q is not an octal mode of at most 7777", mode)
		}
		o.mode, o.setMode = fs.FileMode(n), true
	}
	return o, nil
}

func (o *Ownership) setUser(u string) error {
	if n, err := strconv.ParseUint(u, 10, 31); err == nil {
		o.uid = int(n)
		if known, err := user.LookupId(u); err == nil {
			o.gid, _ = strconv.Atoi(known.Gid)
		}
		return nil
	}
	known, err := user.Lookup(u)
	if err != nil {
		return fault.New(fault.Invalid, "user %q is not known on this node", u)
	}
	o.uid, _ = strconv.Atoi(known.Uid)
	o.gid, _ = strconv.Atoi(known.Gid)
	return nil
}

func (o *Ownership) setGroup(g string) error {
	if n, err := strconv.ParseUint(g, 10, 31); err == nil {
		o.gid = int(n)
		return nil
	}
	known, err := user.LookupGroup(g)
	if err != nil {
		return fault.New(fault.Invalid, "group %q is not known on this node", g)
	}
	o.gid, _ = strconv.Atoi(known.Gid)
	return nil
}

// apply sets owner and mode of a directory. An ordinary user who asks for himself gets what he asks for.
func (o Ownership) apply(dir string) error {
	if (o.uid >= 0 && o.uid != os.Geteuid()) || (o.gid >= 0 && o.gid != os.Getegid()) {
		if err := os.Chown(dir, o.uid, o.gid); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return fault.New(fault.Denied, "this isolator does not run as root and cannot give the volume to user %d group %d", o.uid, o.gid)
			}
			return fault.Wrap(WriteClass(err), err, "set its owner")
		}
	}
	if o.setMode {
		if err := unix.Chmod(dir, uint32(o.mode)); err != nil { // os.Chmod would drop setgid and sticky
			return fault.Wrap(WriteClass(err), err, "set its mode")
		}
	}
	return nil
}
