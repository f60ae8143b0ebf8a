package main

import (
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csi"
)

// openCSI reads the --csi flags. The plugins need not run yet.
func openCSI(flags []string, dir, node string, log *zap.Logger) ([]driver.Driver, error) {
	var out []driver.Driver
	for _, f := range flags {
		o, err := csi.ParseFlag(f, dir)
		if err != nil {
			return nil, console.Usage(err.Error())
		}
		o.Mounts, o.Node, o.Log = isolator.MountsDir(dir), node, log
		d, err := csi.New(o)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}
