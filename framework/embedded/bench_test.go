package embedded

import (
	"context"
	"fmt"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// silent is an agent that does nothing.
type silent struct{ id int }

func (*silent) Run(mesos.FrameworkInfo, mesos.TaskInfo)                            {}
func (*silent) RunGroup(mesos.FrameworkInfo, mesos.ExecutorInfo, []mesos.TaskInfo) {}
func (*silent) Kill(mesos.FrameworkID, mesos.TaskID, *mesos.KillPolicy)            {}
func (*silent) Acknowledge(mesos.FrameworkID, mesos.TaskID, []byte)                {}
func (*silent) Checkpoint(_ []mesos.Resource, _, _ []mesos.Resource) error         { return nil }
func (*silent) ShutdownFramework(mesos.FrameworkID)                                {}
func (*silent) Shutdown()                                                          {}

// big makes a master with n agents and tasks on each, one framework and no clock.
func big(b *testing.B, n, tasks int) (*Master, *framework) {
	m, err := New(Config{Dir: b.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	stream := wire.NewStream("bench", codecs.MediaTypeProtobuf, 1<<20)
	info := frameworkInfo("bench", "db")
	m.subscribe(stream, &scheduler.Call_Subscribe{FrameworkInfo: &info})
	var f *framework
	for _, f = range m.fws {
	}
	start := time.Now()
	for i := range n {
		h := &silent{i}
		_, err := m.Link(fmt.Sprint(i)).Register(context.Background(), agent.Registration{Handle: h, URL: fmt.Sprintf("http://127.0.0.1:%d", 5000+i),
			Info: mesos.AgentInfo{Hostname: fmt.Sprintf("agent%d.local", i), Resources: []mesos.Resource{scalarOf("cpus", 200), scalarOf("mem", 100000), scalarOf("disk", 4096), portsOf(31000, 31999)}}})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("%d agents registered in %v", n, time.Since(start))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.allocate(time.Now())
	start = time.Now()
	for _, o := range sorted(f.offers) {
		var l []mesos.TaskInfo
		msg := m.offerMessage(f, m.agents[o.agent], o)
		for i := range tasks {
			l = append(l, shellTask(&msg, fmt.Sprintf("%s.%d", o.agent, i), "sleep 1", 0.1))
		}
		m.accept(f, &scheduler.Call_Accept{OfferIDs: []mesos.OfferID{{Value: o.id}}, Operations: []mesos.Offer_Operation{launchOp(l...)}, Filters: refuse(0)})
	}
	b.Logf("%d tasks launched in %v", n*tasks, time.Since(start))
	return m, f
}

// BenchmarkOffers1000Agents is one allocation cycle over 1,000 agents that run 100 tasks each: allocation, offers, the
// OFFERS event in protobuf, and a DECLINE of all of them.
func BenchmarkOffers1000Agents(b *testing.B) {
	m, f := big(b, 1000, 100)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().Add(time.Hour)
	b.ResetTimer()
	for b.Loop() {
		now = now.Add(time.Second)
		m.clock = func() time.Time { return now }
		m.allocate(now)
		if len(f.offers) != 1000 {
			b.Fatal(len(f.offers))
		}
		var ids []mesos.OfferID
		var list []mesos.Offer
		for id, o := range f.offers {
			ids = append(ids, mesos.OfferID{Value: id})
			list = append(list, m.offerMessage(f, m.agents[o.agent], o))
		}
		e := &scheduler.Event{Type: scheduler.Event_OFFERS, Offers: &scheduler.Event_Offers{Offers: list}}
		if buf, err := wire.Encode(codecs.MediaTypeProtobuf, e); err != nil || len(buf) == 0 {
			b.Fatal(err)
		}
		m.decline(f, &scheduler.Call_Decline{OfferIDs: ids, Filters: refuse(0)})
	}
}

// BenchmarkIdleCycle is what a cycle costs when everything was declined.
func BenchmarkIdleCycle(b *testing.B) {
	m, f := big(b, 1000, 100)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.allocate(now)
	for _, o := range f.offers {
		m.discard(o, 24*time.Hour)
	}
	b.ResetTimer()
	for b.Loop() {
		m.allocate(now)
	}
	if len(f.offers) != 0 {
		b.Fatal("offers although declined")
	}
}

// BenchmarkStatusUpdate is one status from agent to stream and its acknowledgement, among 100,000 tasks.
func BenchmarkStatusUpdate(b *testing.B) {
	m, f := big(b, 1000, 100)
	var t *task
	for _, t = range f.tasks {
	}
	l := m.agents[t.AgentID.Value].link
	s := m.newStatus(t.AgentID.Value, t.TaskID.Value, mesos.TASK_RUNNING, mesos.SOURCE_EXECUTOR, "")
	for b.Loop() {
		s.UUID = newUUID()
		if err := m.statusUpdate(l, f.id, s, mesos.TASK_RUNNING); err != nil {
			b.Fatal(err)
		}
		m.mu.Lock()
		m.acknowledge(f, &scheduler.Call_Acknowledge{AgentID: t.AgentID, TaskID: t.TaskID, UUID: s.UUID})
		m.mu.Unlock()
	}
}

// BenchmarkState is the document of /state with 100,000 tasks.
func BenchmarkState(b *testing.B) {
	m, _ := big(b, 1000, 100)
	for b.Loop() {
		m.stateJSON()
	}
}
