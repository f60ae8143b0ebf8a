package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
)

const one = ", on one machine " // between two defaults: of a cluster, and of an authority on this machine

// timingFlags are the lease's constants as flags. The framework and all isolators of a cluster are given the same ones, or none.
type timingFlags struct {
	period, call, deadline, fence, reset, drain, mount, wait time.Duration
	clockError                                               float64
}

// add adds the constants that all need.
func (t *timingFlags) add(f *pflag.FlagSet) {
	f.DurationVar(&t.period, "lease-period", 0, "P of docs/safety.md: how often leases are renewed and looked at (default 3s"+one+"500ms)")
	f.DurationVar(&t.call, "lease-call-limit", 0, "R: limit of one call to the authority (default 2s"+one+"500ms)")
	f.DurationVar(&t.deadline, "lease-deadline", 0, "F: without a renewal for that long a node gives up its volumes (default 15s"+one+"3s)")
	f.DurationVar(&t.fence, "lease-fence-limit", 0, "S: how long stopping the users of volumes, verifying and flushing may take (default 5s"+one+"1s)")
	f.DurationVar(&t.reset, "lease-reset-limit", 0, "H: how long a dead-man takes to reset the machine (default 0: there is none)")
	f.DurationVar(&t.drain, "lease-drain", 0, "E: how long I/O in flight may take after a reset (default 0)")
	f.Float64Var(&t.clockError, "lease-clock-error", -1, "rho: bound of the error of clock rates (default 0.1"+one+"0)")
}

// addWait adds what only who waits for nodes needs.
func (t *timingFlags) addWait(f *pflag.FlagSet) {
	f.DurationVar(&t.wait, "lease-wait", 0, "W: a node whose lease stands still that long is dead; a node that publishes constants which need longer never is (default: what I2 needs for F, S, H, E and rho: 24.445s"+one+"4s)")
}

// addMount adds what only who mounts needs.
func (t *timingFlags) addMount(f *pflag.FlagSet) {
	f.DurationVar(&t.mount, "lease-mount-limit", 0, "M: how long before the deadline no mount begins any more (default 5s"+one+"500ms)")
}

// timings are the defaults for an authority, with what the flags say instead.
func (t *timingFlags) timings(authority string) lease.Timings {
	out := lease.ClusterTimings()
	if dial.OneMachine(authority) {
		out = lease.EmbeddedTimings()
	}
	for _, o := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&out.P, t.period}, {&out.R, t.call}, {&out.F, t.deadline}, {&out.S, t.fence}, {&out.H, t.reset}, {&out.E, t.drain}, {&out.M, t.mount}} {
		if o.from != 0 {
			*o.to = o.from
		}
	}
	if t.clockError >= 0 {
		out.Rho = t.clockError
	}
	out.W = out.LeastWait()
	if t.wait != 0 {
		out.W = t.wait
	}
	return out
}
