package lease

import (
	"fmt"
	"math"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Timings are the protocol's constants; docs/safety.md says what each is for. A holder needs P to M and Rho, a taker
// P, R, W and Rho: the holder's part it reads from each node's record.
type Timings struct {
	P   time.Duration // renew period, and the taker's period of looking
	R   time.Duration // limit of one renewal call
	F   time.Duration // self-fence deadline, from the send time of the last acknowledged renewal
	S   time.Duration // bound of fence, verify and flush
	H   time.Duration // bound of a dead-man reset
	E   time.Duration // drain of I/O in flight after a reset
	M   time.Duration // bound of mount(2)
	W   time.Duration // the taker's wait
	Rho float64       // bound of the clock-rate error, 0 to 0.5
}

// EmbeddedTimings are those of `holdfast dev`: one machine, one clock, the authority next door.
func EmbeddedTimings() Timings {
	return Timings{P: 500 * time.Millisecond, R: 500 * time.Millisecond, F: 3 * time.Second, S: time.Second,
		M: 500 * time.Millisecond, W: 4 * time.Second}
}

// ClusterTimings are those for an authority that nodes reach over the network, of nodes without a dead-man: the example of docs/safety.md, with
// the W that I2 gives.
func ClusterTimings() Timings {
	t := Timings{P: 3 * time.Second, R: 2 * time.Second, F: 15 * time.Second, S: 5 * time.Second, M: 5 * time.Second, Rho: 0.1}
	t.W = t.LeastWait()
	return t
}

// LeastWait is the least W that I2 allows for F, S, H, E and rho.
func (t Timings) LeastWait() time.Duration { return t.Publish().wait(t.Rho) }

// Publish gives the holder's constants as the node record carries them.
func (t Timings) Publish() Timing {
	return Timing{F: t.F.Seconds(), S: t.S.Seconds(), H: t.H.Seconds(), E: t.E.Seconds()}
}

// wait gives the least W that is safe against a node with these constants (I2): (F+S+H+E)(1+rho)/(1-rho).
func (t Timing) wait(rho float64) time.Duration {
	sum := seconds(t.F) + seconds(t.S) + seconds(t.H) + seconds(t.E)
	if rho == 0 {
		return sum
	}
	ms := float64(sum) / float64(time.Millisecond) * (1 + rho) / (1 - rho)
	return time.Duration(math.Ceil(ms-1e-6)) * time.Millisecond
}

// seconds reads a published constant, to the microsecond, as it was meant.
func seconds(f float64) time.Duration {
	return time.Duration(math.Round(f*1e6)) * time.Microsecond
}

// check refuses published constants that are no times.
func (t Timing) check() error {
	for _, c := range []struct {
		name  string
		value float64
	}{{"F", t.F}, {"S", t.S}, {"H", t.H}, {"E", t.E}} {
		if math.IsNaN(c.value) || c.value < 0 || c.value > 86400 {
			return fault.New(fault.Invalid, "%s = %v s is not a time between 0 and a day", c.name, c.value)
		}
	}
	if t.F == 0 {
		return fault.New(fault.Invalid, "F = 0 s: the node says of no deadline")
	}
	return nil
}

// CheckHolder checks what a node must satisfy before it registers: all constants are times, and I1, F >= 3(P+R). The error is Invalid and
// names the inequality, the values and the smallest change that satisfies it.
func (t Timings) CheckHolder() error {
	if err := t.checkCommon(); err != nil {
		return err
	}
	if err := t.Publish().check(); err != nil {
		return err
	}
	if need := 3 * (t.P + t.R); t.F < need {
		return fault.New(fault.Invalid, "I1 does not hold: F >= 3(P+R), but F = %v and 3(%v+%v) = %v: raise F to %v, or lower P+R to %v",
			t.F, t.P, t.R, need, need, t.F/3)
	}
	if t.M <= 0 || t.M >= t.F {
		return fault.New(fault.Invalid, "I3 can never hold: a mount needs M before the deadline, but M = %v and F = %v: M must be above 0 and below F", t.M, t.F)
	}
	return nil
}

// CheckTaker checks what a taker must satisfy at start: all constants are times, and I2 for its own F, S, H, E as long as it has
// those. The constants that nodes publish are checked with CheckAgainst when they are seen.
func (t Timings) CheckTaker() error {
	if err := t.checkCommon(); err != nil {
		return err
	}
	if t.W <= 0 {
		return fault.New(fault.Invalid, "W = %v is not a time", t.W)
	}
	if t.F == 0 {
		return nil
	}
	return t.CheckAgainst(t.Publish())
}

// CheckAgainst is I2 for a node with published constants n: W >= (F+S+H+E)(1+rho)/(1-rho). The error is Invalid and names the inequality, the values and
// the smallest change that satisfies it.
func (t Timings) CheckAgainst(n Timing) error {
	if err := n.check(); err != nil {
		return err
	}
	if need := n.wait(t.Rho); t.W < need {
		return fault.New(fault.Invalid, "I2 does not hold: W >= (F+S+H+E)(1+rho)/(1-rho), but W = %v and (%v+%v+%v+%v)(1+%v)/(1-%v) = %v: raise W to %v",
			t.W, seconds(n.F), seconds(n.S), seconds(n.H), seconds(n.E), t.Rho, t.Rho, need, need)
	}
	return nil
}

// CheckDeadMan is I4: the dead-man is fed last at D+S, so H must cover its time-out and its granularity. Who feeds may be stopped between looking at the
// clock and feeding, for as long as the time-out: by what that is above S, H must be longer. Only nodes of grade reset have one.
func (t Timings) CheckDeadMan(timeout, granularity time.Duration) error {
	late := max(timeout-t.S, 0)
	need := timeout + late + granularity
	if t.H >= need {
		return nil
	}
	lower := t.H - granularity // the time-out that would do
	if lower > t.S {
		lower = (lower + t.S) / 2
	}
	lower = lower.Truncate(time.Second)
	with := fmt.Sprintf("%v+%v", timeout, granularity)
	rule := "time-out + granularity of the dead-man"
	if late > 0 {
		with, rule = with+fmt.Sprintf("+%v", late), rule+" + what the time-out is above S"
	}
	or := ""
	if lower >= time.Second {
		or = fmt.Sprintf(", or lower the time-out to %v", lower)
	}
	return fault.New(fault.Invalid, "I4 does not hold: H >= %s, but H = %v and %s = %v: raise H to %v%s", rule, t.H, with, need, need, or)
}

func (t Timings) checkCommon() error {
	switch {
	case t.P <= 0 || t.R <= 0:
		return fault.New(fault.Invalid, "P = %v and R = %v must be above 0", t.P, t.R)
	case math.IsNaN(t.Rho) || t.Rho < 0 || t.Rho > 0.5:
		return fault.New(fault.Invalid, "rho = %v must be between 0 and 0.5", t.Rho)
	}
	return nil
}

// String lists the constants.
func (t Timings) String() string {
	return fmt.Sprintf("P %v, R %v, F %v, S %v, H %v, E %v, M %v, W %v, rho %v", t.P, t.R, t.F, t.S, t.H, t.E, t.M, t.W, t.Rho)
}
