package isolator

import (
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/deadman"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// askDeadMan hands the dead-man's settings to the watchdog, which arms it, once I4 holds for them.
func (s *Service) askDeadMan(state *fence.State) error {
	timeout, err := checkDeadMan(s.o.DeadMan, s.o.DeadManTimeout, s.o.Timings)
	switch {
	case err != nil:
		return err
	case s.o.DeadMan != "" && !s.watched():
		return fault.New(fault.Invalid, "a dead-man (%s) needs the watchdog process, which feeds it", s.o.DeadMan)
	}
	return state.SetDeadMan(s.o.DeadMan, timeout, s.o.Timings.H)
}

// checkDeadMan gives the time-out to ask for. The error is Invalid.
func checkDeadMan(path string, timeout time.Duration, t lease.Timings) (time.Duration, error) {
	if path == "" {
		return 0, nil
	}
	if !filepath.IsAbs(path) {
		return 0, fault.New(fault.Invalid, "dead-man %q is not an absolute path", path)
	}
	if timeout == 0 {
		timeout = max((t.S + time.Second - 1).Truncate(time.Second), time.Second)
	}
	if timeout < time.Second || timeout%time.Second != 0 {
		return 0, fault.New(fault.Invalid, "dead-man time-out %v: it must be whole seconds, at least one", timeout)
	}
	return timeout, fault.Op(t.CheckDeadMan(timeout, deadman.Granularity), "dead-man %s", path)
}

// noteDeadMan shows why there is no dead-man though one is asked for.
func (s *Service) noteDeadMan(grade lease.Grade) {
	text := ""
	if d := s.deadMan(); d != nil && grade != lease.GradeReset {
		text = d.text(grade)
	}
	s.mu.Lock()
	before := s.problems["dead-man"]
	s.mu.Unlock()
	if text != "" && text != before {
		s.log.Error("volumes are not fenced by a dead-man", zap.String("because", text))
	}
	s.problem("dead-man", text)
}

// deadManState is what is known of a dead-man that was asked for.
type deadManState struct {
	path  string
	armed time.Duration
	why   string
}

func (s *Service) deadMan() *deadManState {
	state, ok := s.state.(*fence.State)
	if !ok || s.o.DeadMan == "" {
		return nil
	}
	armed, why := state.DeadMan()
	return &deadManState{s.o.DeadMan, armed, why}
}

func (d *deadManState) text(grade lease.Grade) string {
	because := d.why
	if because == "" {
		because = "the watchdog process has not armed " + d.path + " yet"
	}
	return fmt.Sprintf("%s: the fence grade is %s", because, grade)
}

// deadManStatus is what `holdfast isolator status` and `check` show.
func (s *Service) deadManStatus() *client.DeadMan {
	d := s.deadMan()
	if d == nil {
		return nil
	}
	return &client.DeadMan{Path: d.path, Armed: d.armed > 0, TimeoutSeconds: d.armed.Seconds(), Because: d.why}
}
