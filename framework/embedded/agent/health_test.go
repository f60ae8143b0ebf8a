package agent

import (
	"net"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

func ptr[T any](v T) *T { return &v }

func TestHealthCheckKills(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	task := shell("h1", "touch ok; sleep 0.3; rm ok; sleep 1000")
	task.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_COMMAND, Command: &mesos.CommandInfo{Value: ptr("test -f ok")},
		DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.02), TimeoutSeconds: ptr(2.0), GracePeriodSeconds: ptr(0.2), ConsecutiveFailures: ptr(uint32(3))}
	a.peer.Run(framework(), task)
	st := m.awaitState("h1", mesos.TASK_KILLED)
	want := "STARTING; RUNNING; RUNNING(true); RUNNING(false); RUNNING(false); RUNNING(false); KILLED: Command terminated with signal Terminated"
	if got := m.seen("h1"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if st.Healthy == nil || *st.Healthy || st.Reason != nil {
		t.Errorf("terminal status %v", st)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.updates {
		if s.Healthy != nil && s.GetState() == mesos.TASK_RUNNING && s.GetReason() != mesos.REASON_TASK_HEALTH_CHECK_STATUS_UPDATED {
			t.Errorf("health status %v", s)
		}
	}
}

func TestHealthCheckTimesOut(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	task := shell("h1", "sleep 1000")
	task.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_COMMAND, Command: &mesos.CommandInfo{Value: ptr("sleep 500 & sleep 501")},
		DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.01), TimeoutSeconds: ptr(0.1), GracePeriodSeconds: ptr(0.0), ConsecutiveFailures: ptr(uint32(1))}
	a.peer.Run(framework(), task)
	m.awaitState("h1", mesos.TASK_KILLED)
	if got, want := m.seen("h1"), "STARTING; RUNNING; RUNNING(false); KILLED: Command terminated with signal Terminated"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHealthCheckTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newMaster(t)
	a := newAgent(t, m, nil)
	task := shell("h2", "sleep 1000")
	task.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_TCP, TCP: &mesos.HealthCheck_TCPCheckInfo{Port: uint32(l.Addr().(*net.TCPAddr).Port)},
		DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.02), GracePeriodSeconds: ptr(0.0), ConsecutiveFailures: ptr(uint32(1))}
	task.Check = &mesos.CheckInfo{Type: mesos.CheckInfo_COMMAND, Command: &mesos.CheckInfo_Command{Command: mesos.CommandInfo{Value: ptr("exit 5")}},
		DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.02)}
	a.peer.Run(framework(), task)
	m.await("health and check", func() bool {
		h := m.history("h2")
		if h == "" {
			return false
		}
		last := m.updates[len(m.updates)-1]
		return strings.Contains(h, "RUNNING(true)") && last.CheckStatus.GetCommand() != nil && last.CheckStatus.Command.ExitCode != nil && *last.CheckStatus.Command.ExitCode == 5
	})
	l.Close()
	m.awaitState("h2", mesos.TASK_KILLED)
}

func TestMaxCompletionTime(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	task := shell("slow", "sleep 1000")
	task.MaxCompletionTime = &mesos.DurationInfo{Nanoseconds: int64(50 * time.Millisecond)}
	a.peer.Run(framework(), task)
	if st := m.awaitState("slow", mesos.TASK_FAILED); st.GetReason() != mesos.REASON_MAX_COMPLETION_TIME_REACHED {
		t.Errorf("status %v", st)
	}
}
