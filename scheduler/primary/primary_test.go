package primary

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// cast plays an app: instances that run, fall ill, get lost and end, whose ends are told late or never before they are known.
type cast struct {
	r       *rand.Rand
	keeps   bool
	now     state.Primary
	members []Member
	alive   map[state.TaskID]bool // really runs
	ended   map[state.TaskID]bool // told
	holder  state.TaskID          // who takes itself for the primary
	term    uint64
	n       int
}

func (c *cast) step(t *testing.T) {
	m := &c.members[c.r.Intn(len(c.members))]
	switch c.r.Intn(7) {
	case 0:
		if m.Task == "" {
			c.n++
			m.Task, m.Claimed = state.TaskID(fmt.Sprintf("%s.%d", m.Instance, c.n)), c.keeps
			c.alive[m.Task] = true
		}
	case 1:
		m.Up = m.Task != "" && m.Stays
	case 2:
		m.Up = false
	case 3: // it ends, and that is told
		if m.Task != "" {
			c.alive[m.Task], c.ended[m.Task] = false, true
			m.Task, m.Up = "", false
		}
	case 4: // out of reach: replaced while it may still run; with claims it is not
		if m.Task != "" && !m.Claimed {
			m.Task, m.Up = "", false
		}
	case 5:
		m.Stays = c.r.Intn(3) > 0
		m.Up = m.Up && m.Stays
	case 6:
		if c.now.Task != "" && !c.now.Named && c.holder == c.now.Task {
			c.holder = ""
			c.now = Yield(c.now)
		}
	}
	for task := range c.alive { // ends of runs that were out of reach come late
		if c.alive[task] && !c.current(task) && c.r.Intn(20) == 0 {
			c.alive[task], c.ended[task] = false, true
		}
	}
	c.look(t)
}

func (c *cast) current(task state.TaskID) bool {
	for _, m := range c.members {
		if m.Task == task {
			return true
		}
	}
	return false
}

func (c *cast) look(t *testing.T) {
	was := c.now
	c.now = Next(was, c.members, Facts{Over: c.ended[was.Task], Keeps: c.keeps, First: 100})
	if !c.now.Named {
		return
	}
	if c.now.Task != c.holder {
		if c.holder != "" && c.alive[c.holder] {
			t.Fatalf("%s is named while %s takes itself for the primary: %+v -> %+v", c.now.Task, c.holder, was, c.now)
		}
		if c.now.Term <= c.term || c.now.Term < 100 {
			t.Fatalf("%+v: its term is not above %d", c.now, c.term)
		}
		c.holder, c.term = c.now.Task, c.now.Term
	}
	if c.now.Term < c.term || was.Named && was.Task == c.now.Task && was.Term != c.now.Term {
		t.Fatalf("terms: %+v -> %+v", was, c.now)
	}
	c.term = c.now.Term
	for _, m := range c.members {
		if m.Task == c.now.Task && !m.Up {
			t.Fatalf("%+v is named and not up", m)
		}
	}
}

// TestNeverTwo plays random histories: never is a run named while one that was told before may act, and in the end there is a primary.
func TestNeverTwo(t *testing.T) {
	for seed := range int64(500) {
		c := &cast{r: rand.New(rand.NewSource(seed)), alive: map[state.TaskID]bool{}, ended: map[state.TaskID]bool{}, keeps: seed%2 == 0}
		for n := range 1 + c.r.Intn(4) {
			c.members = append(c.members, Member{Instance: state.InstanceID(fmt.Sprintf("db.%d", n)), Ordinal: n, Stays: true})
		}
		for range 400 {
			c.step(t)
		}
		for task, alive := range c.alive {
			if alive && !c.current(task) {
				c.alive[task], c.ended[task] = false, true
			}
		}
		for n := range c.members {
			m := &c.members[n]
			if m.Task == "" || m.Task == c.now.Yielded {
				c.alive[m.Task], c.ended[m.Task] = false, true
				m.Task = state.TaskID(fmt.Sprintf("%s.last", m.Instance))
				c.alive[m.Task] = true
			}
			m.Up, m.Stays = true, true
			c.look(t)
		}
		c.look(t)
		if !c.now.Named {
			t.Fatalf("seed %d: all are up, and none is the primary: %+v of %+v", seed, c.now, c.members)
		}
	}
}

func TestChoice(t *testing.T) {
	up := func(n int) Member {
		return Member{Instance: state.InstanceID(fmt.Sprint("db.", n)), Ordinal: n, Task: state.TaskID(fmt.Sprint("t", n)), Up: true, Stays: true}
	}
	down := func(n int) Member {
		return Member{Instance: state.InstanceID(fmt.Sprint("db.", n)), Ordinal: n, Stays: true}
	}
	gone := func(n int) Member { return Member{Instance: state.InstanceID(fmt.Sprint("db.", n)), Ordinal: n} }
	named := state.Primary{Instance: "db.1", Ordinal: 1, Task: "t1", Named: true, Term: 7}
	between := state.Primary{Instance: "db.1", Ordinal: 1, Term: 7}
	for name, c := range map[string]struct {
		now     state.Primary
		members []Member
		facts   Facts
		want    state.TaskID
		term    uint64
	}{
		"the lowest first":                  {state.Primary{}, []Member{down(0), up(1), up(2)}, Facts{First: 50}, "t1", 50},
		"it stays":                          {named, []Member{up(0), up(1)}, Facts{}, "t1", 7},
		"its end lets the lowest follow":    {named, []Member{up(0), down(1)}, Facts{Over: true}, "t0", 8},
		"with data of its own it is waited": {named, []Member{up(0), down(1)}, Facts{Over: true, Keeps: true}, "", 7},
		"and comes back":                    {between, []Member{up(0), up(1)}, Facts{Keeps: true}, "t1", 8},
		"unless nobody wants it":            {between, []Member{up(0), gone(1)}, Facts{Keeps: true}, "t0", 8},
		"or its record is gone":             {between, []Member{up(0)}, Facts{Keeps: true}, "t0", 8},
		"not one that has yielded":          {Yield(named), []Member{down(0), up(1), up(2)}, Facts{Keeps: true}, "t2", 8},
		"nobody after it has yielded alone": {Yield(named), []Member{up(1)}, Facts{}, "", 7},
	} {
		got := Next(c.now, c.members, c.facts)
		if got.Named != (c.want != "") || got.Named && got.Task != c.want || got.Term != c.term {
			t.Errorf("%s: %+v, not %q in term %d", name, got, c.want, c.term)
		}
	}
}
