package framework

import (
	"sync"

	"github.com/holdfast-io/holdfast/framework/probe"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// probe runs the checks that are the framework's, until the term ends. It follows the instances by the notices of what was committed; after
// missing some it looks at all of them anew.
func (t *term) probe() {
	f := t.f
	if f.c.Probes < 0 {
		return
	}
	p := probe.New(probe.Options{Limit: f.c.Probes, Report: func(e scheduler.Health) { t.emit(e) },
		Failed: func(x probe.Failure) { f.tell(Notice{Type: "check", ID: string(x.Instance), Check: &x}) }})
	f.mu.Lock()
	f.prober = p
	f.mu.Unlock()
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		p.Run(t.ctx)
	}()
	for t.ctx.Err() == nil {
		notices := f.Events(t.ctx)
		f.watchAll(p)
		for n := range notices {
			if n.Type == string(state.KindInstance) {
				f.watch(p, state.InstanceID(n.ID))
			}
		}
	}
	wg.Wait()
	f.mu.Lock()
	if f.prober == p {
		f.prober = nil
	}
	f.mu.Unlock()
}

// watchAll shows a prober every instance.
func (f *Framework) watchAll(p *probe.Prober) {
	ids := map[state.InstanceID]bool{}
	f.View(func(st *state.State) {
		for id := range st.Instances {
			ids[id] = true
		}
	})
	p.Only(ids)
	for id := range ids {
		f.watch(p, id)
	}
}

// watch shows a prober one instance as it is now, which may be newer than the notice that asks for it.
func (f *Framework) watch(p *probe.Prober, id state.InstanceID) {
	var i *state.Instance
	var d *state.Def
	f.View(func(st *state.State) {
		if i = st.Instances[id]; i != nil && i.Run != nil {
			d = st.Def(i.App, i.Run.Version)
		}
	})
	if i == nil {
		p.Forget(id)
		return
	}
	p.Watch(i, d)
}

// Checks gives what the framework's own checks of a task found so far. It implements what the API looks for beyond Core.
func (f *Framework) Checks(task state.TaskID) ([]probe.Health, []probe.Readiness) {
	f.mu.RLock()
	p := f.prober
	f.mu.RUnlock()
	if p == nil {
		return nil, nil
	}
	return p.Results(task)
}

// tell gives a notice of what is not in the state to readers.
func (f *Framework) tell(n Notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		select {
		case s.c <- n:
		default:
			f.drop(s) // too slow: a closed channel says so
		}
	}
}
