package catalog

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// primary names a run of an app as its primary; nil for none.
func (c *core) primary(app state.AppID, i *state.Instance, term uint64) {
	a := &state.App{ID: app, Version: "v1"}
	if i != nil {
		a.Primary = &state.Primary{Instance: i.ID, Ordinal: i.Ordinal, Task: i.Run.Task, Named: true, Term: term}
	}
	c.set(state.KindApp, string(app), a)
}

// key reads the lock of an app's primary: who it is for, and the session that holds it.
func (x *real) key(t testing.TB, app string) (instance, session string, term float64) {
	t.Helper()
	pair, _, err := x.client.KV().Get(lockPrefix(cluster)+app, &api.QueryOptions{RequireConsistent: true})
	if err != nil {
		t.Fatal(err)
	}
	if pair == nil {
		return "", "", 0
	}
	var value map[string]any
	if err := json.Unmarshal(pair.Value, &value); err != nil {
		t.Fatal(err)
	}
	return value["instance"].(string), pair.Session, value["term"].(float64)
}

// TestHeavyConsulPrimary follows a primary from one instance to another, through the end of the session, a second leader, and a Consul that was away.
func TestHeavyConsulPrimary(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	x := startReal(t, "")
	x.core.app("/db", state.Spec{Primary: true})
	zero, one := x.core.runs("/db", 0, "a", on("192.0.2.1")), x.core.runs("/db", 1, "b", on("192.0.2.2"))
	leads := func(want ...string) {
		t.Helper()
		eventually(t, "primary is at "+strings.Join(want, ","), 20*time.Second, func() bool { return slices.Equal(x.addresses("primary.db"), want) })
	}
	leads()
	x.core.primary("/db", zero, 7)
	leads("192.0.2.1")
	eventually(t, "the lock is held", 10*time.Second, func() bool {
		instance, session, term := x.key(t, "db")
		return instance == string(zero.ID) && session != "" && term == 7
	})
	// At every look there is at most one.
	stop, looked := make(chan struct{}), make(chan int)
	go func() {
		most := 0
		for {
			select {
			case <-stop:
				looked <- most
				return
			default:
			}
			list, _, err := x.client.Catalog().Service("db", "primary", &api.QueryOptions{RequireConsistent: true})
			if err == nil {
				most = max(most, len(list))
			}
		}
	}()
	for term := uint64(8); term < 30; term++ {
		x.core.primary("/db", []*state.Instance{zero, one}[term%2], term)
		time.Sleep(20 * time.Millisecond)
	}
	x.core.primary("/db", one, 30)
	leads("192.0.2.2")
	close(stop)
	if most := <-looked; most != 1 {
		t.Errorf("there were %d primaries at a time", most)
	}
	// Somebody ends the session: it is made anew, and the lock is taken again.
	_, session, _ := x.key(t, "db")
	if _, err := x.client.Session().Destroy(session, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lock is held by another session", 30*time.Second, func() bool {
		_, now, term := x.key(t, "db")
		return now != "" && now != session && term == 30
	})
	leads("192.0.2.2")
	// Another holds the lock: the tag is not given, and the status says why; the old one's is gone all the same.
	_, session, _ = x.key(t, "db")
	x.stop()
	if _, held, _ := x.key(t, "db"); held != "" {
		t.Errorf("the lock outlived the framework's good end")
	}
	theirs, _, err := x.client.Session().CreateNoChecks(&api.SessionEntry{TTL: "60s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the test has the lock", 10*time.Second, func() bool {
		ok, _, err := x.client.KV().Acquire(&api.KVPair{Key: lockPrefix(cluster) + "db", Value: []byte(`{"instance":"theirs","term":1}`), Session: theirs}, nil)
		return err == nil && ok
	})
	x.core.primary("/db", zero, 31)
	x.run(t)
	leads()
	eventually(t, "the status says why", 10*time.Second, func() bool {
		s := x.Status()
		return s.State == StatePartial && len(s.Refused) == 1 && strings.Contains(s.Refused[0].Error, "lock")
	})
	if got := x.addresses("db"); len(got) != 2 {
		t.Errorf("services are at %v meanwhile", got)
	}
	two := x.core.runs("/db", 2, "c", on("192.0.2.3"))
	x.core.primary("/db", two, 31)
	eventually(t, "a new instance is found without the tag", 10*time.Second, func() bool { return slices.Equal(x.addresses("instance-2.db"), []string{"192.0.2.3"}) })
	leads()
	x.core.primary("/db", zero, 32)
	if _, err := x.client.Session().Destroy(theirs, nil); err != nil {
		t.Fatal(err)
	}
	leads("192.0.2.1")
	// Consul is away while the primary changes.
	x.Kill()
	x.core.primary("/db", one, 33)
	x.Consul.Start()
	leads("192.0.2.2")
	// One that is not well has no tag, and an app without primary no lock.
	x.core.runs("/db", 1, "b", on("192.0.2.2"), func(i *state.Instance) { *i = *one; r := *one.Run; r.Healthy = new(bool); i.Run = &r })
	leads()
	x.core.primary("/db", nil, 0)
	eventually(t, "the lock is gone", 10*time.Second, func() bool { _, session, _ := x.key(t, "db"); return session == "" })
}
