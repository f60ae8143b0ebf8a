package pool

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/backend"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// Grow makes a volume larger. The wish is in the label before anything is done, and what is not possible while the volume is mounted, or was cut short, the
// next mount carries out. A wish that is pending can be exceeded, and not be taken back: the image may be as large already.
func (p *Pool) Grow(ctx context.Context, name, uid string, size volume.Bytes) (driver.Growth, error) {
	var g driver.Growth
	err := p.do(ctx, "grow", name, func(dir string) error {
		l, err := backend.ReadLabel(dir)
		if err != nil {
			return err
		}
		if l.Name != name || (uid != "" && l.UID != uid) {
			return fault.New(fault.Conflict, "the label there is of volume %s with uid %s", l.Name, l.UID)
		}
		if size, err = p.back.Size(size); err != nil {
			return err
		}
		switch {
		case size < l.Size:
			return fault.New(fault.Invalid, "it has %d bytes, and cannot shrink to %d", l.Size, size)
		case size < l.Grow:
			return fault.New(fault.Invalid, "it is about to grow to %d bytes, and cannot shrink to %d", l.Grow, size)
		case size == l.Size && l.Grow == 0, l.Size == 0: // 0: nothing limits it
			g = driver.Growth{Size: l.Size}
			return nil
		}
		because, err := p.back.Grow(ctx, dir, p.target(name), &l, size)
		g = driver.Growth{Size: l.Size, Pending: l.Grow, Because: because}
		return err
	})
	if err != nil {
		return driver.Growth{}, err
	}
	return g, nil
}
