package framework

import (
	"net/url"
	"strings"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// guard keeps the scheduler's hands off whatever an unreadable record is about. The scheduler does not know such records: an
// instance that it cannot see has a task that looks like a stranger's, and a volume that looks free. So what belongs to them is withheld
// from the state, plans lose the writes and calls that touch them, and commands for them are refused by name. A record of a
// definition stands for its app. All zero when every record was read.
type guard struct {
	apps      map[state.AppID]string // why: the key
	safe      map[string]string      // by AppID.Safe
	instances map[state.InstanceID]string
	volumes   map[state.VolumeUID]string
	reserved  map[state.ReservedID]string
}

func newGuard(writes []state.Write, bad []store.Bad) *guard {
	g := &guard{apps: map[state.AppID]string{}, safe: map[string]string{}, instances: map[state.InstanceID]string{}, volumes: map[state.VolumeUID]string{}, reserved: map[state.ReservedID]string{}}
	for _, b := range bad {
		g.condemn(b.Key)
	}
	if g.idle() {
		return g
	}
	for _, w := range writes {
		switch v := w.Value.(type) {
		case *state.Instance:
			if why, ok := g.apps[v.App]; ok {
				g.instances[v.ID] = why
			}
		}
	}
	g.unreserved(writes)
	for _, w := range writes {
		if v, ok := w.Value.(*state.Volume); ok {
			if why, ok := g.instances[v.Instance]; ok && v.Instance != "" {
				g.volumes[v.UID] = why
			} else if why, ok := g.apps[v.App]; ok {
				g.volumes[v.UID] = why
			}
		}
	}
	return g
}

// unreserved condemns, where a record of a reservation cannot be read, every instance that should have one and has none among the others:
// it would be taken for new, and start over on an empty volume.
func (g *guard) unreserved(writes []state.Write) {
	why := ""
	for _, key := range g.reserved {
		why = key
	}
	if why == "" {
		return
	}
	has, reserves := map[state.InstanceID]bool{}, map[string]bool{}
	for _, w := range writes {
		switch v := w.Value.(type) {
		case *state.Reserved:
			has[v.Instance] = true
		case *state.Def:
			reserves[state.DefID(v.App, v.Version)] = v.Spec.Reserves()
		}
	}
	for _, w := range writes {
		if i, ok := w.Value.(*state.Instance); ok && !has[i.ID] && reserves[state.DefID(i.App, i.Version)] && g.instances[i.ID] == "" {
			g.instances[i.ID] = why
		}
	}
}

// condemn notes what a key below `/holdfast/<cluster>/v1/` is about.
func (g *guard) condemn(key string) {
	parts := strings.Split(key, "/")
	if len(parts) < 6 { // "", holdfast, cluster, v1, noun, id …
		return
	}
	id := func(i int) string {
		s, err := url.PathUnescape(parts[i])
		if err != nil {
			return parts[i]
		}
		return s
	}
	switch parts[4] {
	case "apps", "defs":
		app := state.AppID("/" + id(5))
		g.apps[app], g.safe[app.Safe()] = key, key
	case "instances":
		if len(parts) > 6 {
			g.instances[state.InstanceID(id(6))] = key
		}
	case "reservations":
		if len(parts) > 6 {
			g.reserved[state.ReservedID(id(6))] = key
		}
	case "volumes":
		if len(parts) > 6 {
			g.volumes[state.VolumeUID(id(6))] = key
		}
	}
}

func (g *guard) idle() bool { return len(g.apps)+len(g.instances)+len(g.volumes)+len(g.reserved) == 0 }

// about gives the key of the unreadable record that a write touches, "" for none.
func (g *guard) about(w state.Write) string {
	switch v := w.Value.(type) {
	case *state.Instance:
		return g.instance(v.ID)
	case *state.Volume:
		return g.volume(v)
	case *state.Reserved:
		return g.reservation(v)
	}
	switch w.Kind {
	case state.KindApp:
		return g.apps[state.AppID(w.ID)]
	case state.KindDef:
		app, _, _ := strings.Cut(w.ID, " ")
		return g.apps[state.AppID(app)]
	case state.KindInstance:
		return g.instance(state.InstanceID(w.ID))
	case state.KindVolume:
		return g.volumes[state.VolumeUID(w.ID)]
	}
	return ""
}

func (g *guard) instance(id state.InstanceID) string {
	if why := g.instances[id]; why != "" {
		return why
	}
	safe, _, _ := id.Split()
	return g.safe[safe]
}

func (g *guard) volume(v *state.Volume) string {
	if why := g.volumes[v.UID]; why != "" {
		return why
	}
	if v.Instance != "" {
		return g.instance(v.Instance)
	}
	return g.apps[v.App]
}

// reservation: an unreadable record of one stands for its instance only when it can be told which; its volumes are listed as leftovers.
func (g *guard) reservation(r *state.Reserved) string {
	if why := g.reserved[r.ID]; why != "" {
		return why
	}
	return g.instance(r.Instance)
}

func (g *guard) task(t state.TaskID) string {
	id, _, ok := state.ParseTaskID(t)
	if !ok {
		return ""
	}
	return g.instance(id)
}

// admit leaves out of loaded records what belongs to an unreadable one.
func (g *guard) admit(writes []state.Write) []state.Write {
	if g.idle() {
		return writes
	}
	out := make([]state.Write, 0, len(writes))
	for _, w := range writes {
		if g.about(w) == "" {
			out = append(out, w)
		}
	}
	return out
}

// strip takes out of a plan what touches an unreadable record.
func (g *guard) strip(p *scheduler.Plan) {
	if g.idle() {
		return
	}
	writes := p.Writes[:0:0]
	for _, w := range p.Writes {
		if g.about(w) == "" {
			writes = append(writes, w)
		}
	}
	calls := p.Calls[:0:0]
	for _, c := range p.Calls {
		if a, ok := c.(scheduler.Accept); ok {
			calls = append(calls, g.acceptable(a))
			continue
		}
		if g.called(c) == "" {
			calls = append(calls, c)
		}
	}
	p.Writes, p.Calls = writes, calls
}

func (g *guard) acceptable(a scheduler.Accept) scheduler.Accept {
	launches := a.Launches[:0:0]
	for _, l := range a.Launches {
		if g.instance(l.Instance.ID) == "" {
			launches = append(launches, l)
		}
	}
	a.Launches = launches
	ops := a.Operations[:0:0]
	for _, op := range a.Operations {
		if g.instance(op.Instance) == "" {
			ops = append(ops, op)
		}
	}
	a.Operations = ops
	return a
}

func (g *guard) called(c scheduler.Call) string {
	switch c := c.(type) {
	case scheduler.Kill:
		return g.task(c.Task)
	case scheduler.Grant:
		if why := g.volumes[c.Volume]; why != "" {
			return why
		}
		return g.task(state.TaskID(c.Owner))
	case scheduler.CancelGrant:
		return g.volumes[c.Volume]
	case scheduler.Revoke:
		return g.volumes[c.Volume]
	case scheduler.CreateVolume:
		return g.volume(c.Volume)
	case scheduler.RemoveVolumeData:
		return g.volume(c.Volume)
	}
	return ""
}

// refuses is the answer to a command about what an unreadable record is about, nil for all others.
func (g *guard) refuses(e scheduler.Event) error {
	if g.idle() {
		return nil
	}
	why := ""
	switch e := e.(type) {
	case scheduler.PutApp:
		why = g.puts(e.Changes)
	case scheduler.PutGroup:
		why = g.puts(e.Changes)
		for _, app := range e.Remove {
			if why == "" {
				why = g.apps[app]
			}
		}
	case scheduler.ScaleApp:
		why = g.apps[e.App]
	case scheduler.RestartApp:
		why = g.apps[e.App]
	case scheduler.RemoveApp:
		why = g.apps[e.App]
	case scheduler.RestartInstance:
		why = g.instance(e.Instance)
	case scheduler.MoveInstance:
		why = g.instance(e.Instance)
	case scheduler.PauseInstance:
		why = g.instance(e.Instance)
	case scheduler.ReplaceInstance:
		why = g.instance(e.Instance)
	case scheduler.AdoptVolume:
		why = g.apps[e.App]
	case scheduler.RemoveVolume:
		why = g.volumes[e.Volume]
	case scheduler.ReleaseReservation:
		why = g.reserved[e.ID]
	case scheduler.StartOperation:
		why = g.volumes[e.Operation.Volume]
	}
	if why == "" {
		return nil
	}
	return fault.New(fault.Conflict, "record %s cannot be read by this version: what it is about is left alone until it is repaired", why)
}

// puts names the unreadable record that one of these definitions is about.
func (g *guard) puts(puts []scheduler.AppPut) string {
	for _, p := range puts {
		if p.Def != nil && g.apps[p.Def.App] != "" {
			return g.apps[p.Def.App]
		}
	}
	return ""
}
