package framework

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// hasty is a step that stops every task it does not know and every instance whose app it does not know, makes instances that
// are missing, and revokes every claim: what a scheduler would do that believes what it sees.
func hasty(s *state.State, e scheduler.Event, env scheduler.Env) (p scheduler.Plan) {
	switch e := e.(type) {
	case scheduler.Status:
		if s.Instances[instanceOf(e.Task)] == nil {
			p.Calls = append(p.Calls, scheduler.Kill{Task: e.Task})
		}
	case scheduler.ScaleApp:
		p.Reply = &scheduler.Reply{}
		for i := range e.Instances {
			id := state.NewInstanceID(e.App, i)
			if s.Instances[id] == nil {
				p.Writes = append(p.Writes, state.Write{Kind: state.KindInstance, ID: string(id), Value: &state.Instance{ID: id, App: e.App, Ordinal: i}})
			}
		}
	case scheduler.Loaded:
		for id, i := range s.Instances {
			if s.Apps[i.App] == nil {
				p.Writes = append(p.Writes, state.Write{Kind: state.KindInstance, ID: string(id)})
				p.Calls = append(p.Calls, scheduler.Kill{Task: state.TaskID(string(id) + ".1-abcdef")})
			}
		}
		for _, uid := range []state.VolumeUID{"vol-a", "vol-b", "vol-c"} {
			p.Calls = append(p.Calls, scheduler.Revoke{Volume: uid})
		}
	}
	return p
}

func instanceOf(t state.TaskID) state.InstanceID {
	id, _, _ := state.ParseTaskID(t)
	return id
}

// TestUnreadableRecordsAreLeftAlone: an instance, an app and a volume cannot be read; whatever is theirs is not touched, others are.
func TestUnreadableRecordsAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	seed(t, dir, []state.Write{
		app("/a", 2), inst("/a", 0), inst("/a", 1), vol("vol-a", "/a", 1),
		app("/b", 1), inst("/b", 0), vol("vol-b", "/b", 0),
		app("/c", 1), inst("/c", 0), vol("vol-c", "/c", 0),
	})
	damage(t, dir, "instances/*/a.1", "apps/b")
	b := setup(t, dir, hasty)
	b.j.await(t, `master runs with "fw"`)
	b.View(func(s *state.State) {
		if len(s.Apps) != 2 || len(s.Instances) != 2 || s.Instances["b.0"] != nil || s.Volumes["vol-b"] != nil {
			t.Errorf("the scheduler sees apps %v, instances %v, volumes %v", s.Apps, s.Instances, s.Volumes)
		}
	})
	for _, task := range []state.TaskID{"a.1.3-abcdef", "b.0.3-abcdef", "b.7.3-abcdef", "stranger.0.3-abcdef"} {
		b.master.send(t, scheduler.Status{Task: task})
	}
	b.j.await(t, "kill stranger.0.3-abcdef")
	for _, l := range b.j.all() {
		if strings.HasPrefix(l, "kill") && l != "kill stranger.0.3-abcdef" || l == "revoke vol-a" || l == "revoke vol-b" {
			t.Errorf("done although the record cannot be read: %s", l)
		}
	}
	b.j.await(t, "revoke vol-c")
	// Commands about them are refused by name; those about others work, less what is unreadable.
	for _, c := range []scheduler.Event{scheduler.ScaleApp{App: "/b", Instances: 3}, scheduler.RemoveApp{App: "/b"}, scheduler.RestartInstance{Instance: "a.1"},
		scheduler.RemoveVolume{Volume: "vol-b"}, scheduler.PutApp{Changes: []scheduler.AppPut{{Def: &state.Def{App: "/b"}}}},
		scheduler.PutGroup{Changes: []scheduler.AppPut{{Def: &state.Def{App: "/b"}}}}, scheduler.PutGroup{Remove: []state.AppID{"/b"}}} {
		if _, err := b.Do(context.Background(), c); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%T: %v", c, err)
		}
	}
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 3}); err != nil {
		t.Fatal(err)
	}
	b.View(func(s *state.State) {
		if s.Instances["a.1"] != nil || s.Instances["a.2"] == nil {
			t.Errorf("after the scaling: %v", s.Instances)
		}
	})
	b.stop()
	if got := readAll(t, dir); !strings.HasPrefix(got["apps/b"], "damaged") || got["instances/"+shardOf(got, "a.1")+"/a.1"] == "" {
		t.Errorf("unreadable records were changed: %q", got)
	}
}

func TestLostFrameworkRecordIsFatal(t *testing.T) {
	dir := t.TempDir()
	seed(t, dir, []state.Write{app("/a", 1)})
	raw(t, dir, func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, _ []byte) error {
			if strings.HasSuffix(string(k), "meta/framework") {
				return b.Delete(k)
			}
			return nil
		})
	})
	b := setup(t, dir, hasty)
	select {
	case err := <-b.done:
		b.done <- err
		if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "meta/framework is missing") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("goes on without its id")
	}
}

func app(id state.AppID, n int) state.Write {
	return state.Write{Kind: state.KindApp, ID: string(id), Value: &state.App{ID: id, Version: "v", Instances: n, Rev: 1}}
}

func inst(app state.AppID, n int) state.Write {
	id := state.NewInstanceID(app, n)
	return state.Write{Kind: state.KindInstance, ID: string(id), Value: &state.Instance{ID: id, App: app, Ordinal: n, Rev: 1}}
}

func vol(uid state.VolumeUID, app state.AppID, n int) state.Write {
	return state.Write{Kind: state.KindVolume, ID: string(uid), Value: &state.Volume{UID: uid, App: app, Instance: state.NewInstanceID(app, n), Rev: 1}}
}

// seed writes records as a framework would have.
func seed(t testing.TB, dir string, writes []state.Write) {
	t.Helper()
	db, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	s, err := store.Open(ctx, db, "", "seed")
	if err == nil {
		err = s.Lead(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	ops, err := s.Encode(append(writes, state.Write{Kind: state.KindFramework, Value: &state.Framework{Cluster: s.Cluster(), ID: "fw", Rev: 1}}))
	if err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	b.Add(ops)
	if err := s.Commit(ctx, &b); err != nil {
		t.Fatal(err)
	}
}

// damage makes records unreadable; names are patterns below the prefix.
func damage(t testing.TB, dir string, names ...string) {
	t.Helper()
	raw(t, dir, func(b *bbolt.Bucket) error {
		hits := 0
		put := map[string]string{}
		err := b.ForEach(func(k, v []byte) error {
			rel := strings.SplitN(string(k), "/", 5)
			for _, n := range names {
				if ok, _ := filepath.Match(n, rel[len(rel)-1]); ok {
					put[string(k)] = "damaged " + string(v)
					hits++
				}
			}
			return nil
		})
		if err != nil || hits != len(names) {
			return fmt.Errorf("%d of %d records found, %w", hits, len(names), err)
		}
		for k, v := range put {
			if err := b.Put([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func readAll(t testing.TB, dir string) map[string]string {
	out := map[string]string{}
	raw(t, dir, func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			rel := strings.SplitN(string(k), "/", 5)
			out[rel[len(rel)-1]] = string(v)
			return nil
		})
	})
	return out
}

func shardOf(all map[string]string, id string) string {
	for k := range all {
		if strings.HasSuffix(k, "/"+id) {
			return strings.Split(k, "/")[1]
		}
	}
	return ""
}

func raw(t testing.TB, dir string, f func(*bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, bolt.FileName), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return f(tx.Bucket([]byte("records"))) }); err != nil {
		t.Fatal(err)
	}
}

// TestGuardOfReservations: an instance whose reservation's record cannot be read must not be taken for one that never had any.
func TestGuardOfReservations(t *testing.T) {
	def := &state.Def{App: "/db", Version: "1", Spec: state.Spec{Volumes: []state.Mount{{Kind: state.MountPersistent, ContainerPath: "data", SizeMB: 1}}}}
	writes := []state.Write{
		{Kind: state.KindApp, ID: "/db", Value: &state.App{ID: "/db", Version: "1", Instances: 2}},
		{Kind: state.KindDef, ID: state.DefID("/db", "1"), Value: def},
		{Kind: state.KindInstance, ID: "db.0", Value: &state.Instance{ID: "db.0", App: "/db", Version: "1"}},
		{Kind: state.KindInstance, ID: "db.1", Value: &state.Instance{ID: "db.1", App: "/db", Version: "1"}},
		{Kind: state.KindReserved, ID: "r1", Value: &state.Reserved{ID: "r1", App: "/db", Instance: "db.1", Agent: "a"}},
	}
	g := newGuard(writes, []store.Bad{{Key: "/holdfast/c/v1/reservations/ab/r0"}})
	var left []string
	for _, w := range g.admit(writes) {
		left = append(left, w.ID)
	}
	if want := []string{"/db", "/db 1", "db.1", "r1"}; !slices.Equal(left, want) {
		t.Errorf("admitted %v, want %v", left, want)
	}
	p := scheduler.Plan{Calls: []scheduler.Call{scheduler.Accept{Operations: []reserve.Op{{Kind: reserve.Unreserve, Instance: "db.0"}, {Kind: reserve.Reserve, Instance: "db.1"}}}}}
	g.strip(&p)
	if ops := p.Calls[0].(scheduler.Accept).Operations; len(ops) != 1 || ops[0].Instance != "db.1" {
		t.Errorf("operations left: %+v", ops)
	}
	if err := g.refuses(scheduler.ReleaseReservation{ID: "r0"}); err == nil {
		t.Error("the unreadable reservation can be released")
	}
}
