package pool

import (
	"context"

	"github.com/holdfast-io/holdfast/isolator/backend"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// Usage says how full a volume is. loop: its file system's figures, as of its last unmount while it is mounted nowhere here. btrfs: its quota group's, as of
// the last commit. dir: the blocks of its files, counted at most once a minute.
func (p *Pool) Usage(ctx context.Context, name string) (driver.Usage, error) {
	var u driver.Usage
	err := p.do(ctx, "measure", name, func(dir string) error {
		l, err := backend.ReadLabel(dir)
		if err == nil {
			u, err = p.back.Usage(ctx, dir, p.target(name), l)
		}
		return err
	})
	if err != nil {
		return driver.Usage{}, err
	}
	return u, nil
}
