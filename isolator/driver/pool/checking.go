package pool

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/backend"
)

// Check looks a volume's own file system over, or mends it. The volumes of back ends dir and btrfs have none: Invalid.
func (p *Pool) Check(ctx context.Context, name, uid string, repair bool) (clean bool, report string, err error) {
	var c bool
	var said string
	err = p.do(ctx, "check", name, func(dir string) error {
		l, err := backend.ReadLabel(dir)
		if err != nil {
			return err
		}
		if l.Name != name || (uid != "" && l.UID != uid) {
			return fault.New(fault.Conflict, "the label there is of volume %s with uid %s", l.Name, l.UID)
		}
		c, said, err = p.back.Check(ctx, dir, p.target(name), l, repair)
		return err
	})
	if err != nil {
		return false, "", err
	}
	return c, said, nil
}
