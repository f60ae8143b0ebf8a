package lease

import "time"

// Clock is a clock that never goes back, and its timers. Deadlines are instants on it: the time since its origin, which is the
// machine's boot for the system's clocks, so that processes of one boot can compare them.
type Clock interface {
	Now() time.Duration
	// After gives a channel that receives once d has passed, and a function that gives the timer up.
	After(d time.Duration) (<-chan struct{}, func())
}
