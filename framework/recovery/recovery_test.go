package recovery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func world() World {
	labels := reserve.Owner{Cluster: "c1", App: "/keep", Instance: "keep.0"}
	res := func(name string, n float64, o reserve.Owner, disk *state.Disk) state.Resource {
		return state.Resource{Name: name, Scalar: n, Disk: disk, Reservations: []state.Reservation{{Role: "holdfast", Dynamic: true, Labels: o.Labels()}}}
	}
	of := labels
	of.Volume = "keep#data#u1"
	disk := res("disk", 64, of, &state.Disk{Persistence: "keep#data#u1", ContainerPath: "data"})
	other := labels
	other.Cluster = "another"
	task := func(id state.TaskID, agent state.AgentID, st string) mesos.CensusTask {
		return mesos.CensusTask{ID: id, Framework: "fw", Agent: agent, State: st, BeganAt: now.Add(-time.Hour)}
	}
	keep := task("keep.0.4-aaaaaa", "a1", "TASK_RUNNING")
	keep.Resources = []state.Resource{disk}
	strange := task("db.0.9-ffffff", "a1", "TASK_RUNNING")
	strange.Framework = "another"
	claim := func(name, uid string, st lease.ClaimState, e volume.Epoch, owner string) lease.ClaimVersion {
		return lease.ClaimVersion{Claim: lease.Claim{VolumeUID: uid, Ref: volume.Ref{Driver: "pool", Name: name}, State: st, Epoch: e, Nonce: "n-" + uid, Owner: owner, Node: "node1", Policy: lease.Policy{Mode: "lease"}}}
	}
	free := claim("db-7", "u7", lease.Free, 3, "")
	free.Node = ""
	gone := claim("db-1", "u8", lease.Free, 9, "")
	gone.Tombstone = true
	spec := state.Spec{Volumes: []state.Mount{{Kind: state.MountExternal, Driver: "pool", Pattern: "db", ContainerPath: "data", Policy: "lease", Size: 5}}}
	return World{Cluster: "c1", Framework: "fw", Now: now,
		Census: &mesos.Census{Agents: map[state.AgentID]mesos.CensusAgent{
			"a1": {Agent: state.Agent{ID: "a1", Hostname: "h1", URL: "http://h1:5051"}, Resources: []state.Resource{res("cpus", 1, labels, nil), disk, res("cpus", 9, other, nil)}},
			"a2": {Agent: state.Agent{ID: "a2", Hostname: "h2"}, Resources: []state.Resource{res("cpus", 1, labels, nil)}}},
			Tasks: []mesos.CensusTask{task("db.0.2-bbbbbb", "a1", "TASK_RUNNING"), task("db.4.1-cccccc", "a2", "TASK_UNREACHABLE"), task("db.1.1-dddddd", "a1", "TASK_FAILED"), keep, strange,
				task("who.0.1-eeeeee", "a1", "TASK_RUNNING")}},
		Claims: []lease.ClaimVersion{claim("db", "u0", lease.Held, 2, "db.0.2-bbbbbb"), free, gone, claim("lonely", "u9", lease.Held, 1, "docker:x")},
		Nodes:  []lease.NodeVersion{{Node: lease.Node{UID: "node1", AgentID: "a1", Alive: true, Drivers: []lease.DriverFacts{{Name: "pool", Scope: "node"}}}}},
		Apps: []App{{Def: &state.Def{App: "/db", Version: "v1", Spec: spec}, Instances: 3},
			{Def: &state.Def{App: "/keep", Version: "v2", Spec: state.Spec{Volumes: []state.Mount{{Kind: state.MountPersistent, ContainerPath: "data"}}}}, Instances: 1}}}
}

func TestPlan(t *testing.T) {
	r, err := Plan(world())
	if err != nil {
		t.Fatal(err)
	}
	s := state.New()
	s.Apply(r.Writes)
	if f := s.Framework; f.ID != "fw" || f.Cluster != "c1" || !f.Reserves {
		t.Errorf("framework %+v", f)
	}
	i := s.Instances["db.0"]
	if i == nil || i.Phase != state.PhaseRunning || i.Incarnation != 2 || i.Run.Node != "node1" || i.Run.AgentURL != "http://h1:5051" || i.Version != "v1" ||
		!slices.Equal(i.Run.Claims, []state.Grant{{Volume: "u0", Epoch: 2, Nonce: "n-u0", Done: true}}) {
		t.Errorf("db.0: %+v", i)
	}
	if i := s.Instances["db.4"]; i == nil || i.Phase != state.PhaseLost || i.Run.LostAt.IsZero() || s.Apps["/db"].Instances != 5 {
		t.Errorf("db.4, which is unreachable: %+v; app %+v", i, s.Apps["/db"])
	}
	if s.Instances["db.1"] != nil || len(s.Instances) != 3 {
		t.Errorf("a task that is over is an instance, or %d", len(s.Instances))
	}
	if v := s.Volumes["u0"]; v.App != "/db" || v.Instance != "db.0" || v.Phase != state.VolumeReady || v.Scope != "node" || v.Node != "node1" || v.Epoch != 2 || v.Size != 5 {
		t.Errorf("volume in use: %+v", v)
	}
	if v := s.Volumes["u7"]; v.Instance != "db.7" || v.Phase != state.VolumePlanned || !v.AdoptOnly || v.Epoch != 3 {
		t.Errorf("volume that nobody uses: %+v; it must never be made again", v)
	}
	if v := s.Volumes["u9"]; v == nil || v.App != "" {
		t.Errorf("volume of nobody: %+v", v)
	}
	if s.Volumes["u8"] != nil {
		t.Error("a removed volume is back")
	}
	var held, left []*state.Reserved
	for _, x := range s.Reserved {
		if x.Phase == state.ReservedHeld {
			held = append(held, x)
		} else {
			left = append(left, x)
		}
	}
	if len(held) != 1 || len(left) != 1 || held[0].Agent != "a1" || held[0].Incarnation != 4 || len(held[0].Volumes) != 1 || held[0].Volumes[0].ContainerPath != "data" ||
		held[0].Volumes[0].SizeMB != 64 || !held[0].Volumes[0].Created {
		t.Errorf("reservations %+v %+v", held, left)
	}
	if len(r.Unknown) != 1 || r.Unknown[0].Task != "who.0.1-eeeeee" {
		t.Errorf("unknown: %+v", r.Unknown)
	}
	if text := strings.Join(r.Notes, "\n"); !strings.Contains(text, "lonely") || !strings.Contains(text, "number 4 runs") {
		t.Error(text)
	}
}

// An older export knows where an idle volume is; the claim's epoch still wins.
func TestPlanOlder(t *testing.T) {
	w := world()
	w.Older = map[state.VolumeUID]*state.Volume{"u7": {UID: "u7", Ref: volume.Ref{Driver: "pool", Name: "db-7"}, App: "/db", Instance: "db.7", Scope: "node", Node: "node3", Epoch: 1, Phase: state.VolumeCreating, Op: "x"}}
	r, err := Plan(w)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New()
	s.Apply(r.Writes)
	if v := s.Volumes["u7"]; v.Node != "node3" || v.Epoch != 3 || v.Phase != state.VolumeReady || v.Op != "" {
		t.Errorf("%+v", v)
	}
}

func TestPlanRefuses(t *testing.T) {
	w := world()
	w.Apps = append(w.Apps, App{Def: &state.Def{App: "/db", Version: "v3"}})
	if _, err := Plan(w); !fault.Is(err, fault.Invalid) {
		t.Errorf("an app twice: %v", err)
	}
	w = world()
	w.Census.Tasks = append(w.Census.Tasks, mesos.CensusTask{ID: "db.0.2-999999", Framework: "fw", State: "TASK_RUNNING"})
	if _, err := Plan(w); !fault.Is(err, fault.Conflict) {
		t.Errorf("two tasks of one run: %v", err)
	}
}
