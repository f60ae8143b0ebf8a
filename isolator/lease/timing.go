package lease

import "time"

// Timings are the protocol's constants for one authority and one node, docs/safety.md.
type Timings struct {
	P   time.Duration // renew period
	R   time.Duration // limit of one renewal call
	F   time.Duration // self-fence deadline, from the send time of the last acknowledged renewal
	S   time.Duration // bound of fence, verify and flush
	H   time.Duration // bound of a dead-man reset
	E   time.Duration // drain of I/O in flight after a reset
	M   time.Duration // bound of mount(2)
	W   time.Duration // the taker's wait
	Rho float64       // bound of the clock-rate error
}

// EmbeddedTimings are those of `holdfast dev`: one machine, one clock, the authority next door.
func EmbeddedTimings() Timings {
	return Timings{P: 500 * time.Millisecond, R: 500 * time.Millisecond, F: 3 * time.Second, S: time.Second, M: 500 * time.Millisecond, W: 4 * time.Second}
}

// Publish gives the constants as the node record carries them.
func (t Timings) Publish() Timing {
	return Timing{F: t.F.Seconds(), S: t.S.Seconds(), H: t.H.Seconds(), E: t.E.Seconds()}
}
