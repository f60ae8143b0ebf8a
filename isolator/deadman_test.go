package isolator

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// I4 is checked before anything is armed: the error names it, the values, and the smallest change.
func TestDeadManSettings(t *testing.T) {
	const sec = time.Second
	t6 := lease.ClusterTimings()
	t6.H = 6 * sec
	for _, c := range []struct {
		name    string
		path    string
		timeout time.Duration
		timings lease.Timings
		want    time.Duration
		says    string
	}{
		{"none", "", 0, lease.ClusterTimings(), 0, ""},
		{"by S", "/dev/watchdog", 0, t6, 5 * sec, ""},
		{"quicker", "/dev/watchdog", 2 * sec, t6, 2 * sec, ""},
		{"no H", "/dev/watchdog", 0, lease.ClusterTimings(), 0, "I4 does not hold: H >= time-out + granularity of the dead-man, but H = 0s and 5s+1s = 6s: raise H to 6s"},
		{"slower than S", "/dev/watchdog", 10 * sec, t6, 0, "H >= time-out + granularity of the dead-man + what the time-out is above S, but H = 6s and 10s+1s+5s = 16s: raise H to 16s, or lower the time-out to 5s"},
		{"no path", "watchdog", 0, t6, 0, "not an absolute path"},
		{"fractions", "/dev/watchdog", 1500 * time.Millisecond, t6, 0, "whole seconds"},
		{"negative", "/dev/watchdog", -sec, t6, 0, "whole seconds"},
	} {
		got, err := checkDeadMan(c.path, c.timeout, c.timings)
		if c.says == "" {
			if err != nil || got != c.want {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
			continue
		}
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.says)
		}
	}
}
