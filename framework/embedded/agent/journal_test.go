package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/journal"
)

// launchOf is a launch with something in every field that a recovery has to bring back.
func launchOf(id string) journal.Launch {
	task := withVolume(shell(id, "true"), "data", "vol", "a=b,c")
	task.Data = []byte{0, 1, 255}
	task.Resources = append(Resources{CPUs: 0.1, Mem: 32.5, PortsBegin: 5, PortsEnd: 9}.mesos(), persistentDisk("r", "p", "x"))
	task.Labels = &mesos.Labels{Labels: []mesos.Label{{Key: "k", Value: ptr("v")}}}
	task.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_TCP, TCP: &mesos.HealthCheck_TCPCheckInfo{Port: 7}, DelaySeconds: ptr(0.0)}
	task.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: 5}}
	return journal.Launch{Framework: fwID, Container: "c-" + id, Agent: "m-S0", Sandbox: "/x", Task: task}
}

func TestJournalReplay(t *testing.T) {
	dir := t.TempDir()
	s, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := launchOf("t1")
	j, err := s.Create("c-t1", l)
	if err != nil {
		t.Fatal(err)
	}
	first := newStatus("m-S0", l.Task.TaskID, mesos.TASK_STARTING, mesos.SOURCE_EXECUTOR, "")
	second := newStatus("m-S0", l.Task.TaskID, mesos.TASK_RUNNING, mesos.SOURCE_EXECUTOR, "héllo")
	second.ContainerStatus = containerStatus("c-t1", 77)
	if err := j.Append(journal.Record{Start: &journal.Start{Pid: 5, Ticks: 1 << 60}}, journal.Record{Update: &first}, journal.Record{Update: &second}); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(journal.Record{Ack: first.UUID}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if err := j.Append(journal.Record{Clean: true}); err == nil {
		t.Error("a closed journal takes records")
	}
	check := func(why string) {
		t.Helper()
		all, bad, err := s.LoadAll()
		if err != nil || len(bad) > 0 || len(all) != 1 {
			t.Fatalf("%s: %v %v %v", why, all, bad, err)
		}
		c := replay(all[0])
		c.close()
		got, err1 := c.task.Marshal()
		want, err2 := l.Task.Marshal()
		if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: task %v, want %v; %v %v", why, c.task, l.Task, err1, err2)
		}
		if c.sandbox != "/x" || c.start.Ticks != 1<<60 || len(c.pending) != 1 || !c.pending[0].Equal(second) || len(c.statuses) != 2 || c.state != mesos.TASK_RUNNING || c.clean {
			t.Errorf("%s: replayed as %+v", why, c)
		}
	}
	check("as written")
	path := filepath.Join(dir, "meta/containers/c-t1.log")
	whole, _ := os.ReadFile(path)
	os.WriteFile(path, append(bytes.Clone(whole), []byte(`{"update":{"task_`)...), 0o644)
	check("with a torn line")
	if now, _ := os.ReadFile(path); !bytes.Equal(now, whole) {
		t.Error("the torn line is still there")
	}
	all, _, _ := s.LoadAll()
	c := replay(all[0])
	if err := c.journal.Rewrite(c.summary()); err != nil {
		t.Fatal(err)
	}
	c.close()
	check("rewritten")

	// Records that cannot be read are named and left alone; those that never were are removed.
	os.WriteFile(filepath.Join(dir, "meta/containers/torn.log"), []byte(`{"laun`), 0o644)
	os.WriteFile(filepath.Join(dir, "meta/containers/new.log"), []byte(`{"launch":{"v":2}}`+"\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "meta/containers/mad.log"), append(bytes.Clone(whole), []byte("garbage\n")...), 0o644)
	all, bad, err := s.LoadAll()
	if err != nil || len(all) != 1 || len(bad) != 2 || bad["new"] == nil || bad["mad"] == nil {
		t.Errorf("%d read, bad %v, %v", len(all), bad, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "meta/containers/torn.log")); err == nil {
		t.Error("a launch that never reached the disk is kept")
	}
}

func TestJournalStaysShort(t *testing.T) {
	dir := t.TempDir()
	s, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := launchOf("t1")
	j, err := s.Create("c-t1", l)
	if err != nil {
		t.Fatal(err)
	}
	c := &container{id: "c-t1", agent: "m-S0", framework: fwID, task: l.Task, sandbox: "/x", journal: j}
	for range 90 {
		st := newStatus("m-S0", l.Task.TaskID, mesos.TASK_RUNNING, mesos.SOURCE_EXECUTOR, string(bytes.Repeat([]byte("x"), 30000)))
		if err := c.update(st); err != nil {
			t.Fatal(err)
		}
		c.ack(st.UUID)
	}
	c.close()
	if st, err := os.Stat(filepath.Join(dir, "meta/containers/c-t1.log")); err != nil || st.Size() > 2<<20 {
		t.Errorf("journal has %d bytes, %v", st.Size(), err)
	}
	all, _, _ := s.LoadAll()
	if got := replay(all[0]); len(got.statuses) != 1 || len(got.pending) != 0 || !got.statuses[0].Equal(c.statuses[0]) {
		t.Errorf("replayed as %+v", got)
	}
}

func TestIdentity(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		s, err := journal.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := s.LoadIdentity(); id != nil || err != nil {
			t.Errorf("fresh: %v %v", id, err)
		}
		want := journal.Identity{ID: "m-S0", BootID: "b", Hostname: "h", Total: Resources{CPUs: 1, PortsEnd: 3}.mesos(), Attrs: attributes(map[string]string{"a": "1.5", "b": "[1-2,4-5]", "c": "x"}),
			Framework: map[string]mesos.FrameworkInfo{"f": framework()}}
		if err := s.SaveIdentity(want); err != nil {
			t.Fatal(err)
		}
		got, err := s.LoadIdentity()
		if err != nil || got.ID != "m-S0" || !sameResources(got.Total, want.Total) || !reflect.DeepEqual(got.Attrs, want.Attrs) || !reflect.DeepEqual(got.Framework["f"], framework()) {
			t.Errorf("loaded %+v, %v", got, err)
		}
		before, _ := s.BootID()
		if err := s.PowerCycle("other"); err != nil {
			t.Fatal(err)
		}
		if after, _ := s.BootID(); after == before {
			t.Error("the boot id did not change")
		}
		if err := s.ForgetIdentity(); err != nil {
			t.Fatal(err)
		}
		if id, err := s.LoadIdentity(); id != nil || err != nil {
			t.Errorf("forgotten: %v %v", id, err)
		}
	}
	dir := t.TempDir()
	s, _ := journal.Open(dir)
	os.WriteFile(filepath.Join(dir, "meta/agent.json"), []byte(`{"v":1,"id":`), 0o644)
	if _, err := s.LoadIdentity(); err == nil {
		t.Error("a damaged identity is taken for none")
	}
}
