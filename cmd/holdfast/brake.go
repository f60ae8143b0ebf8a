package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
)

// brakeFlags say when so many nodes have vanished at once that nothing may be moved.
type brakeFlags struct {
	share   float64
	min     int
	window  time.Duration
	release time.Duration
}

func (b *brakeFlags) add(f *pflag.FlagSet) {
	f.Float64Var(&b.share, "brake-share", 0.5, "nothing is moved once more than this share of the nodes vanished at once; 1 for never")
	f.IntVar(&b.min, "brake-nodes", 3, "and at least so many")
	f.DurationVar(&b.window, "brake-window", 5*time.Minute, "within so long")
	f.DurationVar(&b.release, "brake-release", 15*time.Minute, "for how long, unless they are back or a person says so before (holdfast thaw); 0: only a person releases it")
}

func (b *brakeFlags) check() error {
	switch {
	case !(b.share > 0 && b.share <= 1):
		return console.Usage(fmt.Sprintf("--brake-share is %v: a share above 0 and up to 1 is needed", b.share))
	case b.min < 1:
		return console.Usage(fmt.Sprintf("--brake-nodes is %d: at least 1 is needed", b.min))
	case b.window <= 0 || b.release < 0:
		return console.Usage("--brake-window must be more than nothing, and --brake-release must not be negative")
	}
	return nil
}

// lasts is the release as the scheduler's settings have it: negative for a person only.
func (b *brakeFlags) lasts() time.Duration {
	if b.release == 0 {
		return -1
	}
	return b.release
}
