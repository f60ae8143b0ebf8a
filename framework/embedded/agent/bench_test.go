package agent

import (
	"fmt"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// BenchmarkRunning is the time from Run to TASK_RUNNING of a trivial command.
func BenchmarkRunning(b *testing.B) {
	m := newMaster(b)
	a := newAgent(b, m, func(c *Config) { c.Timing.KillGrace = time.Millisecond })
	var sum time.Duration
	for i := range b.N {
		id := fmt.Sprintf("t%d", i)
		begun := time.Now()
		a.peer.Run(framework(), shell(id, "sleep 1000"))
		m.awaitState(id, mesos.TASK_RUNNING)
		sum += time.Since(begun)
		kill(a, id, 0)
		m.awaitState(id, mesos.TASK_KILLED)
		m.mu.Lock()
		m.updates = nil
		m.mu.Unlock()
	}
	b.ReportMetric(float64(sum.Microseconds())/float64(b.N), "µs/running")
}

// BenchmarkHundred starts a hundred tasks at once and ends them all.
func BenchmarkHundred(b *testing.B) {
	m := newMaster(b)
	a := newAgent(b, m, nil)
	count := func(state mesos.TaskState, n int) func() bool {
		return func() bool {
			seen := 0
			for _, s := range m.updates {
				if s.GetState() == state {
					seen++
				}
			}
			return seen >= n
		}
	}
	var up, down time.Duration
	for i := range b.N {
		begun := time.Now()
		for k := range 100 {
			a.peer.Run(framework(), shell(fmt.Sprintf("t%d-%d", i, k), "exec sleep 1000"))
		}
		m.await("all running", count(mesos.TASK_RUNNING, 100))
		up += time.Since(begun)
		begun = time.Now()
		for k := range 100 {
			kill(a, fmt.Sprintf("t%d-%d", i, k), time.Second)
		}
		m.await("all killed", count(mesos.TASK_KILLED, 100))
		down += time.Since(begun)
		m.mu.Lock()
		m.updates = nil
		m.mu.Unlock()
	}
	b.ReportMetric(float64(up.Milliseconds())/float64(b.N), "ms/up")
	b.ReportMetric(float64(down.Milliseconds())/float64(b.N), "ms/down")
}

// BenchmarkThousandAgents starts a thousand agents without processes and runs a task on each.
func BenchmarkThousandAgents(b *testing.B) {
	for range b.N {
		m := newMaster(b)
		agents := make([]*Agent, 1000)
		for i := range agents {
			a, err := New(Config{Hostname: fmt.Sprintf("a%d", i), Master: m, Runtime: RuntimeNone, Resources: Resources{CPUs: 1, Mem: 100}})
			if err != nil {
				b.Fatal(err)
			}
			if err := a.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			agents[i] = a
		}
		for i, a := range agents {
			a.peer.Run(framework(), shell(fmt.Sprintf("t%d", i), "true"))
		}
		m.await("all running", func() bool {
			n := 0
			for _, s := range m.updates {
				if s.GetState() == mesos.TASK_RUNNING {
					n++
				}
			}
			return n == 1000
		})
		for _, a := range agents {
			if err := a.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}
