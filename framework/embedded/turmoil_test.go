package embedded

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/calls"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// TestTurmoil runs two schedulers that launch, reserve and kill while cables are pulled, agents are killed and streams
// break, all drawn from a seed (HOLDFAST_SEED; printed), and then compares what master, agents and schedulers believe.
func TestTurmoil(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("HOLDFAST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	length := 1200 * time.Millisecond
	if s := os.Getenv("HOLDFAST_TURMOIL"); s != "" {
		length, _ = time.ParseDuration(s)
	}
	timing := quick()
	timing.AgentLost, timing.Recovered = 150*time.Millisecond, 0
	w := &turmoil{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), end: time.Now().Add(length)}
	w.cfg = Config{Dir: t.TempDir(), Timing: timing}
	w.m, w.stop = runMaster(t, w.cfg)
	w.url = w.m.URL()
	for i := range 3 {
		w.agents = append(w.agents, newFakeAgent(t, w.m, i).start(20*time.Millisecond))
	}
	var wg sync.WaitGroup
	for i := range 2 {
		s := &troubled{w: w, rnd: rand.New(rand.NewPCG(seed, uint64(i))), role: fmt.Sprint("role", i), launched: map[string]bool{}, on: map[string]string{}, heard: map[string]mesos.TaskState{}}
		w.scheds = append(w.scheds, s)
		wg.Go(s.run)
	}
	for time.Now().Before(w.end) {
		w.trouble()
		time.Sleep(time.Duration(w.rnd.IntN(40)) * time.Millisecond)
	}
	w.calm()
	eventually(t, "agreement", func() string {
		bad := w.compare()
		if bad != "" {
			for _, s := range w.scheds {
				s.ask()
			}
		}
		return bad
	})
	w.over.Store(true)
	for _, s := range w.scheds {
		s.hangUp()
	}
	wg.Wait()
}

type turmoil struct {
	t      *testing.T
	rnd    *rand.Rand
	cfg    Config
	m      *Master // of the main goroutine
	stop   func()
	url    string
	agents []*fakeAgent
	dead   [3]bool
	scheds []*troubled
	end    time.Time
	over   atomic.Bool
}

// trouble does one bad thing, or takes one back.
func (w *turmoil) trouble() {
	i := w.rnd.IntN(len(w.agents))
	a := w.agents[i]
	switch w.rnd.IntN(9) {
	case 0, 1:
		a.link.Cut()
	case 2, 3:
		a.link.Heal()
	case 4:
		if !w.dead[i] {
			a.kill()
			a.link.Hangup()
			w.dead[i] = true
		}
	case 5:
		w.revive(i)
	case 6:
		w.scheds[w.rnd.IntN(2)].hangUp()
	case 7:
		a.link.Hangup()
	case 8:
		if w.rnd.IntN(4) == 0 {
			w.restartMaster()
		}
	}
}

// restartMaster ends the master and starts it again on the same directory and port; cables that were pulled are whole then.
func (w *turmoil) restartMaster() {
	w.cfg.Listen = w.m.Addr()
	w.stop()
	w.m, w.stop = runMaster(w.t, w.cfg)
	for i, a := range w.agents {
		a.kill()
		n := a.successor(w.m.Link(a.link.key))
		w.agents[i], w.dead[i] = n, false
		if err := n.reregister(); err != nil {
			w.t.Error(err)
		}
		go n.live(20 * time.Millisecond)
	}
}

func (w *turmoil) revive(i int) {
	if !w.dead[i] || w.agents[i].link.IsCut() {
		return
	}
	w.agents[i] = w.agents[i].restart(20 * time.Millisecond)
	w.dead[i] = false
}

// calm takes everything back.
func (w *turmoil) calm() {
	for i, a := range w.agents {
		a.link.Heal()
		w.revive(i)
	}
}

// compare says where master, agents and schedulers disagree.
func (w *turmoil) compare() string {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for _, a := range w.agents {
		if s := w.compareAgent(a); s != "" {
			return s
		}
	}
	for _, s := range w.scheds {
		if bad := s.compare(); bad != "" {
			return bad
		}
	}
	return ""
}

func (w *turmoil) compareAgent(a *fakeAgent) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := w.m.agents[a.id.Value]
	if st == nil || !st.connected {
		return a.reg.Info.Hostname + " is not registered"
	}
	for k, t := range a.tasks {
		mine := st.tasks[k]
		if mine == nil {
			return fmt.Sprintf("%s runs %v (%s), which the master does not know", st.id, k, t.task.GetState())
		}
		if len(t.pending) > 0 {
			return fmt.Sprintf("%s: status of %v is not acknowledged", st.id, k)
		}
	}
	var sum resource.List
	for k, t := range st.tasks {
		if a.tasks[k] == nil {
			return fmt.Sprintf("the master believes in %v (%s), which %s does not have", k, t.GetState(), st.id)
		}
		sum = resource.Add(sum, resource.Unallocate(t.Resources)...)
	}
	if !resource.Equal(st.total, resource.Add(nil, a.reg.Info.Resources...)) {
		return fmt.Sprintf("%s has %s, the master counts %s", st.id, resource.Format(a.reg.Info.Resources), resource.Format(st.total))
	}
	for _, o := range st.offers {
		sum = resource.Add(sum, resource.Unallocate(o.resources)...)
	}
	if all := resource.Add(sum, w.m.alloc.Free(st.id)...); !resource.Equal(all, st.total) {
		return fmt.Sprintf("%s: used, offered and free are %s of %s", st.id, resource.Format(all), resource.Format(st.total))
	}
	return ""
}

// troubled is a scheduler that keeps coming back.
type troubled struct {
	w    *turmoil
	rnd  *rand.Rand
	role string
	n    int

	mu       sync.Mutex
	c        *client
	id       *mesos.FrameworkID
	launched map[string]bool            // told the master to, and it took the call
	on       map[string]string          // agent of each
	heard    map[string]mesos.TaskState // newest status
}

func (s *troubled) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		s.c.close()
	}
}

func (s *troubled) run() {
	for !s.w.over.Load() {
		info := frameworkInfo(s.role, s.role)
		s.mu.Lock()
		info.ID = s.id
		s.mu.Unlock()
		c, err := tryDial(s.w.t, s.w.url, pb, info)
		if err != nil {
			time.Sleep(5 * time.Millisecond) // the master is being restarted
			continue
		}
		s.mu.Lock()
		s.c = c
		s.mu.Unlock()
		for open := true; open; {
			select {
			case e := <-c.events:
				s.event(c, e)
			case <-c.ended:
				open = false
			}
		}
	}
}

func (s *troubled) event(c *client, e *scheduler.Event) {
	switch e.Type {
	case scheduler.Event_SUBSCRIBED:
		s.mu.Lock()
		s.id = e.Subscribed.FrameworkID
		s.mu.Unlock()
		c.info.ID = e.Subscribed.FrameworkID
		_ = c.try(calls.Reconcile())
	case scheduler.Event_OFFERS:
		for i := range e.Offers.Offers {
			s.offer(c, &e.Offers.Offers[i])
		}
	case scheduler.Event_ERROR: // removed although the call for it seemed to fail
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.Error.Message == "Framework has been removed" {
			s.id = nil
			clear(s.launched)
			clear(s.heard)
		}
	case scheduler.Event_UPDATE:
		st := e.Update.Status
		s.mu.Lock()
		s.heard[st.TaskID.Value] = st.GetState()
		s.mu.Unlock()
		if len(st.UUID) > 0 {
			_ = c.try(calls.Acknowledge(st.AgentID.Value, st.TaskID.Value, st.UUID))
		}
		if st.GetState() == mesos.TASK_RUNNING && s.rnd.IntN(3) == 0 {
			_ = c.try(calls.Kill(st.TaskID.Value, ""))
		} else if s.rnd.IntN(60) == 0 && time.Now().Before(s.w.end) {
			s.tearDown(c)
		}
	}
}

// tearDown ends the framework; the next subscription makes a new one.
func (s *troubled) tearDown(c *client) {
	if c.try(&scheduler.Call{Type: scheduler.Call_TEARDOWN}) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id = nil
	clear(s.launched)
	clear(s.heard)
}

// offer launches a task, on a fresh reservation or a plain one, or declines.
func (s *troubled) offer(c *client, o *mesos.Offer) {
	var plainCPU float64
	for i := range o.Resources {
		if o.Resources[i].Name == "cpus" && len(o.Resources[i].Reservations) == 0 {
			plainCPU = o.Resources[i].Scalar.Value
		}
	}
	if plainCPU < 0.1 || s.rnd.IntN(3) == 0 || time.Now().After(s.w.end) {
		_ = c.try(calls.Decline(o.ID).With(calls.RefuseSeconds(50 * time.Millisecond)))
		return
	}
	s.n++
	cmd := "sleep 1000"
	if s.rnd.IntN(2) == 0 {
		cmd = "true"
	}
	task := shellTask(o, fmt.Sprintf("%s-%d", s.role, s.n), cmd, 0.05)
	ops := []mesos.Offer_Operation{launchOp(task)}
	if s.rnd.IntN(4) == 0 {
		for i := range task.Resources {
			task.Resources[i].Reservations = []mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: &s.role}}
		}
		ops = []mesos.Offer_Operation{{Type: mesos.Offer_Operation_RESERVE, Reserve: &mesos.Offer_Operation_Reserve{Resources: task.Resources}}, launchOp(task)}
	}
	err := c.try(&scheduler.Call{Type: scheduler.Call_ACCEPT, Accept: &scheduler.Call_Accept{OfferIDs: []mesos.OfferID{o.ID}, Operations: ops, Filters: refuse(0)}})
	if err == nil {
		s.mu.Lock()
		s.launched[task.TaskID.Value], s.on[task.TaskID.Value] = true, o.AgentID.Value
		s.mu.Unlock()
	}
}

// compare says whether a task that was launched vanished without a word; the caller holds the master's mu.
func (s *troubled) compare() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.w.m.fws[s.id.GetValue()]
	if f == nil || !f.connected() {
		return s.role + " is not connected"
	}
	for id := range s.launched {
		t := f.tasks[id]
		state, heard := s.heard[id]
		if t == nil && !heard {
			return fmt.Sprintf("%s: %s vanished without a word", s.role, id)
		}
		if t == nil && !terminal(state) {
			return fmt.Sprintf("%s: %s is over, but the last word was %s", s.role, id, state)
		}
		if t != nil && terminal(state) && !terminal(t.GetState()) {
			return fmt.Sprintf("%s: %s runs (%s), but the last word was %s", s.role, id, t.GetState(), state)
		}
	}
	return ""
}

// ask reconciles explicitly what has not ended as far as the scheduler knows. One has to: as with Mesos, what the master
// decides while a framework is away is not repeated, and a task that a lost agent does not bring back is not spoken of.
func (s *troubled) ask() {
	s.mu.Lock()
	tasks := map[string]string{}
	for id := range s.launched {
		if !terminal(s.heard[id]) {
			tasks[id] = s.on[id]
		}
	}
	c := s.c
	s.mu.Unlock()
	if len(tasks) > 0 {
		_ = c.try(calls.Reconcile(calls.ReconcileTasks(tasks)))
	}
}
