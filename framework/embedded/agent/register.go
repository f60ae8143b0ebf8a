package agent

import (
	"context"
	"errors"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/journal"
)

// link is the agent's conversation with its master: register, signs of life, updates. It owns the order in which they leave.
// tried is closed after the first attempt to register.
func (a *Agent) link(ctx context.Context, tried chan struct{}) {
	ping := time.NewTicker(a.cfg.Timing.Ping)
	defer ping.Stop()
	for first := true; ; first = false {
		if !a.Registered() && !a.isShut() {
			a.register(ctx)
		}
		if first {
			close(tried)
		}
		wait := a.cfg.Timing.Ping
		if a.Registered() {
			wait = a.forward(ctx)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-ping.C:
			if a.Registered() {
				a.pong(ctx)
			}
		case <-a.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (a *Agent) isShut() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shut
}

func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// register announces the agent once: anew without an id, with everything it runs when it has one.
func (a *Agent) register(ctx context.Context) {
	id := a.ID()
	var err error
	if id == "" {
		err = a.registerAnew(ctx)
	} else {
		err = a.cfg.Master.Reregister(ctx, a.reregistration(id))
	}
	switch {
	case err == nil:
		a.mu.Lock()
		a.registered = a.id != ""
		a.mu.Unlock()
		for _, c := range a.streams() {
			c.resend()
		}
	case errors.Is(err, ErrRemoved):
		a.disowned()
	case ctx.Err() == nil && !errors.Is(err, ErrCut):
		a.log.Warn("agent is not registered; tried again", zap.String("agent", id), zap.Error(err))
	}
}

func (a *Agent) registerAnew(ctx context.Context) error {
	id, err := a.cfg.Master.Register(ctx, a.registration())
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.id = id.Value
	a.mu.Unlock()
	if err := a.saveIdentity(); err != nil {
		// Without its id on disk the agent would come back as another one and lose its tasks: try again.
		a.mu.Lock()
		a.id = ""
		a.mu.Unlock()
		return err
	}
	a.log.Info("agent registered", zap.String("agent", id.Value))
	return nil
}

// saveIdentity writes what the agent knows of itself. Writers take turns, so that an older state never replaces a newer one.
func (a *Agent) saveIdentity() error {
	a.saving.Lock()
	defer a.saving.Unlock()
	return a.writeIdentity()
}

// knowFramework makes a framework durable before its first task is.
func (a *Agent) knowFramework(id string, f mesos.FrameworkInfo) error {
	a.saving.Lock()
	defer a.saving.Unlock()
	a.mu.Lock()
	known, ok := a.frameworks[id]
	a.frameworks[id] = f
	a.mu.Unlock()
	if ok && known.Equal(f) {
		return nil
	}
	err := a.writeIdentity()
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.frameworks[id] = known; !ok { // the next launch tries again
			delete(a.frameworks, id)
		}
	}
	return err
}

// writeIdentity is called with the turn to write.
func (a *Agent) writeIdentity() error {
	a.mu.Lock()
	id := journal.Identity{ID: a.id, BootID: a.boot, Hostname: a.cfg.Hostname, Base: a.cfg.Resources.mesos(), Total: a.total,
		Attrs: attributes(a.cfg.Attributes), Framework: map[string]mesos.FrameworkInfo{}}
	for k, v := range a.frameworks {
		id.Framework[k] = v
	}
	a.mu.Unlock()
	return a.store.SaveIdentity(id)
}

// disowned is called when the master has marked this agent's id gone: kill everything, be another agent from now on.
func (a *Agent) disowned() {
	a.log.Warn("the master has removed this agent: its tasks are killed and it registers anew", zap.String("agent", a.ID()))
	a.act(func() {
		if err := a.store.ForgetIdentity(); err != nil {
			a.log.Error("agent id is not forgotten on disk", zap.Error(err))
			return
		}
		a.mu.Lock()
		a.id = ""
		a.total = a.cfg.Resources.mesos()
		old := make([]*container, 0, len(a.tasks))
		for _, c := range a.tasks {
			old = append(old, c)
		}
		a.mu.Unlock()
		for _, c := range old {
			a.abandon(c)
		}
	})
}

func (a *Agent) registration() Registration {
	a.mu.Lock()
	defer a.mu.Unlock()
	info := mesos.AgentInfo{Hostname: a.cfg.Hostname, Resources: append([]mesos.Resource(nil), a.total...),
		Attributes: attributes(a.cfg.Attributes)}
	if a.id != "" {
		info.ID = &mesos.AgentID{Value: a.id}
	}
	at := a.endpoint.url()
	if u, err := url.Parse(at); err == nil {
		if n, err := strconv.ParseInt(u.Port(), 10, 32); err == nil {
			port := int32(n)
			info.Port = &port
		}
	}
	return Registration{Info: info, Version: Version, Handle: a.peer, URL: at}
}

func (a *Agent) reregistration(id string) Reregistration {
	r := Reregistration{Registration: a.registration(), ID: mesos.AgentID{Value: id}}
	groups := map[string]bool{}
	for _, c := range a.allTasks() {
		if t, last := c.mesosTask(); !last && !c.isSilent() {
			r.Tasks = append(r.Tasks, t)
			if c.group != nil && !groups[c.group.id] {
				groups[c.group.id] = true
				e := *c.task.Executor
				e.FrameworkID = &mesos.FrameworkID{Value: c.framework}
				r.Executors = append(r.Executors, e)
			}
		}
	}
	a.mu.Lock()
	done := append([]*container(nil), a.completed...)
	for _, f := range a.frameworks {
		r.Frameworks = append(r.Frameworks, f)
	}
	a.mu.Unlock()
	for _, c := range done {
		t, _ := c.mesosTask()
		r.Completed = append(r.Completed, t)
	}
	sort.Slice(r.Tasks, func(i, k int) bool { return r.Tasks[i].TaskID.Value < r.Tasks[k].TaskID.Value })
	return r
}

// pong gives the sign of life.
func (a *Agent) pong(ctx context.Context) {
	err := a.cfg.Master.Pong(ctx, mesos.AgentID{Value: a.ID()})
	switch {
	case err == nil:
	case errors.Is(err, ErrRemoved):
		a.setRegistered(false)
		a.disowned()
	default: // cut, or not known: announce ourselves with everything we run
		a.setRegistered(false)
		a.poke()
	}
}

func (a *Agent) setRegistered(v bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.registered = v
}

// streams lists everything that may have an update to send.
func (a *Agent) streams() []*container {
	list := a.allTasks()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.answers {
		list = append(list, c)
	}
	return list
}

// forward sends the oldest update of every task that is due, and says how long there is nothing to do.
func (a *Agent) forward(ctx context.Context) time.Duration {
	now := time.Now()
	wait := maxUpdateRetry
	for _, c := range a.streams() {
		s, latest, next := c.head(now, a.cfg.Timing.UpdateRetry)
		if s != nil {
			err := a.cfg.Master.StatusUpdate(ctx, mesos.FrameworkID{Value: c.framework}, *s, latest)
			if err != nil && ctx.Err() == nil {
				// Whether it arrived is unknown; it is repeated when the link is back.
				a.setRegistered(false)
				return a.cfg.Timing.Ping
			}
		}
		if !next.IsZero() {
			wait = min(wait, time.Until(next))
		}
	}
	return max(wait, time.Millisecond)
}

// mesos builds the resources of an agent without reservations.
func (r Resources) mesos() []mesos.Resource {
	scalar := mesos.SCALAR
	var out []mesos.Resource
	for _, s := range []struct {
		name  string
		value float64
	}{{"cpus", r.CPUs}, {"mem", r.Mem}, {"disk", r.Disk}} {
		if s.value > 0 {
			out = append(out, mesos.Resource{Name: s.name, Type: &scalar, Scalar: &mesos.Value_Scalar{Value: s.value}})
		}
	}
	if r.PortsEnd > 0 {
		ranges := mesos.RANGES
		out = append(out, mesos.Resource{Name: "ports", Type: &ranges, Ranges: &mesos.Value_Ranges{
			Range: []mesos.Value_Range{{Begin: r.PortsBegin, End: r.PortsEnd}}}})
	}
	return out
}

// attributes reads values as a Mesos agent does: a number is a scalar, [a-b] are ranges, anything else is text.
func attributes(m map[string]string) []mesos.Attribute {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	var out []mesos.Attribute
	for _, n := range names {
		v := m[n]
		at := mesos.Attribute{Name: n, Type: mesos.TEXT, Text: &mesos.Value_Text{Value: v}}
		if f, err := strconv.ParseFloat(v, 64); err == nil && !strings.ContainsAny(v, "nNxXpP_") {
			at = mesos.Attribute{Name: n, Type: mesos.SCALAR, Scalar: &mesos.Value_Scalar{Value: f}}
		} else if r, ok := parseRanges(v); ok {
			at = mesos.Attribute{Name: n, Type: mesos.RANGES, Ranges: &mesos.Value_Ranges{Range: r}}
		}
		out = append(out, at)
	}
	return out
}

func parseRanges(v string) ([]mesos.Value_Range, bool) {
	inner, ok := strings.CutPrefix(v, "[")
	if !ok {
		return nil, false
	}
	if inner, ok = strings.CutSuffix(inner, "]"); !ok {
		return nil, false
	}
	var out []mesos.Value_Range
	for _, part := range strings.Split(inner, ",") {
		lo, hi, ok := strings.Cut(strings.TrimSpace(part), "-")
		begin, err1 := strconv.ParseUint(strings.TrimSpace(lo), 10, 64)
		end, err2 := strconv.ParseUint(strings.TrimSpace(hi), 10, 64)
		if !ok || err1 != nil || err2 != nil || end < begin {
			return nil, false
		}
		out = append(out, mesos.Value_Range{Begin: begin, End: end})
	}
	return out, true
}
