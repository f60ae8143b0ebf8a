package main

import (
	"context"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestLeaseCheck(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		text []string
	}{
		{"", fault.ExitOK, []string{"W 24.445s, rho 0.1", "24.445s >= (15s+5s+0s+0s)(1+0.1)/(1-0.1) = 24.445s"}},
		{"--lease-reset-limit 5s --lease-drain 2s", fault.ExitOK, []string{"W 33s"}},
		{"--lease-deadline 10s", fault.ExitFailed, []string{"I1 does not hold", "raise F to 15s"}},
		{"--lease-wait 20s", fault.ExitFailed, []string{"I2 does not hold", "raise W to 24.445s"}},
		{"--lease-mount-limit 20s", fault.ExitFailed, []string{"I3 can never hold"}},
		{"--lease-clock-error 0.6", fault.ExitFailed, []string{"rho = 0.6"}},
		{"--authority tcp://h", fault.ExitFailed, []string{"tcp://h"}},
		{"extra", fault.ExitUsage, []string{"extra"}},
	} {
		var out, errOut strings.Builder
		code := execute(context.Background(), append([]string{"lease", "check"}, strings.Fields(c.args)...), strings.NewReader(""), &out, &errOut)
		for _, text := range c.text {
			if code != c.code || !strings.Contains(out.String()+errOut.String(), text) {
				t.Errorf("lease check %s: exit %d, want %d and %q in\n%s%s", c.args, code, c.code, text, out.String(), errOut.String())
			}
		}
	}
}

// TestTimingsAgree: framework and isolator take the same constants for an authority, so that nobody has to give any.
func TestTimingsAgree(t *testing.T) {
	var none timingFlags
	none.clockError = -1
	for _, authority := range []string{"unix:///run/x.sock", "zk://h/holdfast/c", "consul://h/holdfast/c"} {
		timings := none.timings(authority)
		if err := timings.CheckHolder(); err != nil {
			t.Errorf("%s: %v", authority, err)
		}
		if err := timings.CheckTaker(); err != nil {
			t.Errorf("%s: %v", authority, err)
		}
	}
}
