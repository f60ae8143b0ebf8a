package maintenance

import (
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	api "github.com/mesos/mesos-go/api/v1/lib/maintenance"
)

func machine(host, ip string) mesos.MachineID {
	var m mesos.MachineID
	if host != "" {
		m.Hostname = &host
	}
	if ip != "" {
		m.IP = &ip
	}
	return m
}

func schedule(machines ...mesos.MachineID) api.Schedule {
	return api.Schedule{Windows: []api.Window{{MachineIDs: machines, Unavailability: mesos.Unavailability{Start: mesos.TimeInfo{Nanoseconds: 1}}}}}
}

func TestAskOnceAndAgainAfterTheAnswer(t *testing.T) {
	p := New(schedule(machine("a", "")))
	pair := Pair{"f", "s"}
	now := time.Unix(100, 0)
	if p.For("a", "10.0.0.1") == nil || p.For("b", "10.0.0.1") != nil {
		t.Error("machine by host name")
	}
	if !p.Wants(pair, now) {
		t.Fatal("nobody asked yet")
	}
	p.Sent(Inverse{ID: "O1", Pair: pair})
	if p.Wants(pair, now.Add(time.Hour)) {
		t.Error("asked although one is out")
	}
	p.Answer("other", "O1", true, time.Second, now) // not its own
	if p.Wants(pair, now) {
		t.Error("an answer of somebody else counted")
	}
	p.Answer("f", "O1", false, time.Second, now)
	if p.Wants(pair, now) || !p.Wants(pair, now.Add(time.Second)) {
		t.Error("filter")
	}
	st := p.Status(func(string) (string, string) { return "a", "10.0.0.1" })
	if len(st.DrainingMachines) != 1 || len(st.DrainingMachines[0].Statuses) != 1 || st.DrainingMachines[0].Statuses[0].GetStatus().String() != "DECLINE" {
		t.Errorf("status %v", st)
	}
	p.Sent(Inverse{ID: "O2", Pair: pair})
	if w := p.Withdraw(func(Pair) bool { return true }); len(w) != 1 || w[0].ID != "O2" {
		t.Errorf("withdrawn %v", w)
	}
}

func TestSchedulesThatMakeNoSense(t *testing.T) {
	for name, s := range map[string]api.Schedule{
		"no machine":   schedule(),
		"nameless":     schedule(machine("", "")),
		"twice":        schedule(machine("a", "1.2.3.4"), machine("a", "1.2.3.4")),
		"negative end": {Windows: []api.Window{{MachineIDs: []mesos.MachineID{machine("a", "")}, Unavailability: mesos.Unavailability{Duration: &mesos.DurationInfo{Nanoseconds: -1}}}}},
	} {
		if Validate(&s) == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if s := schedule(machine("a", ""), machine("", "1.2.3.4")); Validate(&s) != nil {
		t.Error("a good one was refused")
	}
}
