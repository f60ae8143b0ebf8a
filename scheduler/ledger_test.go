package scheduler

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// ledger models what an agent has, as Mesos keeps it: amounts by identity.
type ledger struct {
	scalars map[string]place.Milli
	ports   map[string]map[uint64]bool
	sample  map[string]state.Resource
}

func newLedger(list ...state.Resource) *ledger {
	l := &ledger{scalars: map[string]place.Milli{}, ports: map[string]map[uint64]bool{}, sample: map[string]state.Resource{}}
	for _, r := range list {
		l.add(r)
	}
	return l
}

func eachPort(r state.Resource, f func(uint64)) {
	for _, g := range r.Ranges {
		for p := g.Begin; p <= g.End; p++ {
			f(p)
		}
	}
}

func (l *ledger) add(r state.Resource) {
	k := place.Identity(&r)
	l.sample[k] = r
	if r.Name == "ports" {
		if l.ports[k] == nil {
			l.ports[k] = map[uint64]bool{}
		}
		eachPort(r, func(p uint64) { l.ports[k][p] = true })
		return
	}
	l.scalars[k] += place.ToMilli(r.Scalar)
}

// take removes resources, all or none.
func (l *ledger) take(list ...state.Resource) error {
	want := newLedger(list...)
	for k, n := range want.scalars {
		if l.scalars[k] < n {
			return fmt.Errorf("does not contain %s", k)
		}
	}
	for k, ports := range want.ports {
		for p := range ports {
			if !l.ports[k][p] {
				return fmt.Errorf("does not contain port %d of %s", p, k)
			}
		}
	}
	for k, n := range want.scalars {
		l.scalars[k] -= n
	}
	for k, ports := range want.ports {
		for p := range ports {
			delete(l.ports[k], p)
		}
	}
	return nil
}

// list gives everything, as an offer would show it.
func (l *ledger) list() (out []state.Resource) {
	for _, k := range sortedKeys(l.sample) {
		r := l.sample[k]
		if r.Name != "ports" {
			if r.Scalar = l.scalars[k].Float(); r.Scalar > 0 {
				out = append(out, r)
			}
			continue
		}
		r.Ranges = nil
		for _, p := range sortedKeys(l.ports[k]) {
			if n := len(r.Ranges); n > 0 && r.Ranges[n-1].End+1 == p {
				r.Ranges[n-1].End = p
			} else {
				r.Ranges = append(r.Ranges, state.Range{Begin: p, End: p})
			}
		}
		if len(r.Ranges) > 0 {
			out = append(out, r)
		}
	}
	return out
}

func (l *ledger) clone() *ledger { return newLedger(l.list()...) }

func unstacked(r state.Resource) state.Resource {
	r.Reservations = r.Reservations[:len(r.Reservations)-1]
	return r
}

func stripped(r state.Resource) state.Resource {
	d := *r.Disk
	d.Persistence, d.ContainerPath, d.Principal = "", "", ""
	r.Disk = &d
	if d == (state.Disk{}) {
		r.Disk = nil
	}
	return r
}

// apply carries out an operation as Mesos does, or says why not.
func (l *ledger) apply(op reserve.Op) error {
	from, to := []state.Resource{}, []state.Resource{}
	for _, r := range op.Resources {
		top := state.Reservation{}
		if n := len(r.Reservations); n > 0 {
			top = r.Reservations[n-1]
		}
		isVolume := r.Disk != nil && r.Disk.Persistence != ""
		switch op.Kind {
		case reserve.Reserve:
			if !top.Dynamic || top.Role != r.AllocationRole {
				return fmt.Errorf("a reserve operation was attempted for role %q, allocated to %q", top.Role, r.AllocationRole)
			}
			if n := len(r.Reservations); n > 1 && !strings.HasPrefix(top.Role, r.Reservations[n-2].Role+"/") {
				return fmt.Errorf("role %q is no refinement of %q", top.Role, r.Reservations[n-2].Role)
			}
			from, to = append(from, unstacked(r)), append(to, r)
		case reserve.Unreserve:
			if !top.Dynamic || isVolume {
				return fmt.Errorf("cannot be unreserved: %s", place.Identity(&r))
			}
			from, to = append(from, r), append(to, unstacked(r))
		case reserve.Create:
			if !isVolume || len(r.Reservations) == 0 {
				return fmt.Errorf("not a persistent volume on reserved disk: %s", place.Identity(&r))
			}
			for _, x := range l.list() {
				if x.Disk != nil && x.Disk.Persistence == r.Disk.Persistence {
					return fmt.Errorf("Persistence ID '%s' is not unique", r.Disk.Persistence)
				}
			}
			from, to = append(from, stripped(r)), append(to, r)
		case reserve.CreateDisk, reserve.DestroyDisk:
			d := *r.Disk
			made := r
			made.Disk = &d
			if d.Source, d.ID = "RAW", ""; op.Kind == reserve.CreateDisk {
				d.Source, d.ID = op.Target, "made"
			}
			from, to = append(from, r), append(to, made)
		case reserve.Destroy:
			from, to = append(from, r), append(to, stripped(r))
		case reserve.Grow:
			more := r
			more.Scalar = r.Scalar + op.Addition.Scalar
			from, to = append(from, r, *op.Addition), append(to, more)
		case reserve.Shrink:
			less, freed := r, stripped(r)
			less.Scalar, freed.Scalar = r.Scalar-op.Subtract, op.Subtract
			from, to = append(from, r), append(to, less, freed)
		default:
			return fmt.Errorf("%s is not supported here", op.Kind)
		}
	}
	if err := l.take(from...); err != nil {
		return err
	}
	for _, r := range to {
		l.add(r)
	}
	return nil
}

// resourceText prints a reserved resource shortly.
func resourceText(r state.Resource) string {
	amount := fmt.Sprintf("=%g", r.Scalar)
	if r.Name == "ports" {
		amount = fmt.Sprint(r.Ranges)
	}
	text := r.Name + amount
	for _, v := range r.Reservations {
		who := v.Role
		if id := v.Labels[reserve.LabelInstance]; id != "" {
			who += " for " + id
			if vol := v.Labels[reserve.LabelVolume]; vol != "" {
				who += " " + vol
			}
		} else if len(v.Labels) > 0 {
			who += " labelled"
		}
		text += "(" + who + ")"
	}
	if d := r.Disk; d != nil {
		text += "[" + strings.Join(slices.DeleteFunc([]string{d.Source, d.Root, d.Profile, d.Persistence, d.ContainerPath}, func(s string) bool { return s == "" }), ":") + "]"
	}
	return text
}

func operations(ops []reserve.Op) string {
	var b strings.Builder
	for _, op := range ops {
		var list []string
		for _, r := range op.Resources {
			list = append(list, resourceText(r))
		}
		fmt.Fprintf(&b, "\n     %s %s %s", op.Kind, op.ID, strings.Join(list, " "))
		if op.Addition != nil {
			fmt.Fprintf(&b, " by %s", resourceText(*op.Addition))
		}
		if op.Subtract > 0 {
			fmt.Fprintf(&b, " by %g", op.Subtract)
		}
	}
	return b.String()
}

// The scenario's agents that keep books: `agent NAME` makes one, and from then on `offer NAME` offers what it has free.

type sAgent struct {
	free   *ledger
	used   map[state.TaskID][]state.Resource
	failed map[string]string // operations that are to be refused, with the reason
}

func (s *scenario) agentOf(a args) error {
	role := "holdfast"
	if r := a.named["role"]; r != "" {
		role = r
	}
	free := newLedger()
	var stack []state.Reservation
	if r := a.named["reserved"]; r != "" {
		stack = []state.Reservation{{Role: r}}
	}
	for name, n := range map[string]float64{"cpus": a.num("cpus", 4), "mem": a.num("mem", 1024), "disk": a.num("disk", 1000)} {
		free.add(state.Resource{Name: name, Scalar: n, AllocationRole: role, Reservations: stack})
	}
	if m := a.num("mount", 0); m > 0 {
		free.add(state.Resource{Name: "disk", Scalar: m, AllocationRole: role, Disk: &state.Disk{Source: "MOUNT", Root: "/mnt/a"}})
	}
	if m := a.num("raw", 0); m > 0 {
		free.add(state.Resource{Name: "disk", Scalar: m, AllocationRole: role, Provider: "p", Disk: &state.Disk{Source: "RAW", Profile: "fast"}})
	}
	if m := a.num("path", 0); m > 0 {
		free.add(state.Resource{Name: "disk", Scalar: m, AllocationRole: role, Disk: &state.Disk{Source: "PATH", Root: "/mnt/p"}})
	}
	free.add(state.Resource{Name: "ports", Ranges: []state.Range{{Begin: 31000, End: 31009}}, AllocationRole: role})
	if a.has("foreign") {
		free.add(state.Resource{Name: "cpus", Scalar: 1, AllocationRole: role, Reservations: []state.Reservation{{Role: role, Dynamic: true, Labels: map[string]string{"holdfast_cluster": "other", "holdfast_instance": "db.0"}}}})
		free.add(state.Resource{Name: "disk", Scalar: 10, AllocationRole: role, Reservations: []state.Reservation{{Role: role, Dynamic: true}}, Disk: &state.Disk{Persistence: "theirs", ContainerPath: "x"}})
	}
	if a.has("leftover") {
		ours := func(v string) []state.Reservation {
			l := reserve.Owner{Cluster: "c1", App: "/old", Instance: "old.0", Volume: v}.Labels()
			return []state.Reservation{{Role: role, Dynamic: true, Labels: l}}
		}
		free.add(state.Resource{Name: "cpus", Scalar: 1, AllocationRole: role, Reservations: ours("")})
		free.add(state.Resource{Name: "disk", Scalar: 20, AllocationRole: role, Reservations: ours("old#d#1"), Disk: &state.Disk{Persistence: "old#d#1", ContainerPath: "d"}})
	}
	if s.books == nil {
		s.books = map[state.AgentID]*sAgent{}
	}
	s.books[state.AgentID(a.list[0])] = &sAgent{free: free, used: map[state.TaskID][]state.Resource{}, failed: map[string]string{}}
	return nil
}

// accepted carries out an ACCEPT on an agent that keeps books.
func (s *scenario) accepted(c Accept) {
	b := s.books[c.Agent]
	if b == nil {
		return
	}
	for _, op := range c.Operations {
		st := OperationStatus{ID: op.ID, Agent: c.Agent, State: "OPERATION_FINISHED", UUID: []byte("op")}
		err := error(nil)
		if why, there := b.failed[string(op.Kind)]; there {
			err = fmt.Errorf("%s", why)
		} else {
			err = b.free.apply(op)
		}
		if err != nil {
			st.State, st.Message, st.UUID = "OPERATION_ERROR", err.Error(), nil
		}
		if op.ID != "" {
			s.answers = append(s.answers, st)
		}
	}
	for _, l := range c.Launches {
		if err := b.free.take(l.Resources...); err != nil {
			s.events1 = append(s.events1, Status{Task: l.Run.Task, Agent: c.Agent, State: "TASK_ERROR", Source: "SOURCE_MASTER", Reason: "REASON_TASK_INVALID", Message: err.Error()})
			continue
		}
		b.used[l.Run.Task] = l.Resources
	}
}

// released gives back what a task used.
func (s *scenario) released(agent state.AgentID, task state.TaskID) {
	b := s.books[agent]
	if b == nil {
		return
	}
	for _, r := range b.used[task] {
		b.free.add(r)
	}
	delete(b.used, task)
}

// operation delivers what agents and master say of operations: all, `lost` (nothing), or `NAME=STATE` for all that wait.
func (s *scenario) operation(a args) ([]Event, error) {
	answers, events := s.answers, s.events1
	s.answers, s.events1 = nil, nil
	if a.has("lost") {
		return nil, nil
	}
	if st := a.named["state"]; st != "" {
		var out []Event
		for _, id := range sortedKeys(s.s.Reserved) {
			for _, p := range s.s.Reserved[id].Ops {
				out = append(out, OperationStatus{ID: p.ID, Agent: s.s.Reserved[id].Agent, State: st, Message: "Reconciliation: Operation is unknown"})
			}
		}
		return out, nil
	}
	var out []Event
	for _, o := range answers {
		out = append(out, o)
	}
	return append(out, events...), nil
}

func (s *scenario) release(a args) ([]Event, error) {
	for _, id := range sortedKeys(s.s.Reserved) {
		if r := s.s.Reserved[id]; string(r.Instance) == a.list[0] && (a.named["phase"] == "" || a.named["phase"] == string(r.Phase)) {
			return []Event{ReleaseReservation{ID: id, Forget: a.has("forget")}}, nil
		}
	}
	for id, l := range s.s.Leftovers {
		if string(l.Instance) == a.list[0] {
			return []Event{ReleaseReservation{ID: state.ReservedID(id)}}, nil
		}
	}
	return []Event{ReleaseReservation{ID: state.ReservedID(a.list[0])}}, nil
}

func (s *scenario) opsFailed(a args) ([]Event, error) {
	i := s.s.Instances[state.InstanceID(a.list[0])]
	r := s.s.CurrentReserved(state.InstanceID(a.list[0]))
	if i == nil || r == nil {
		return nil, fmt.Errorf("nothing is reserved for %s", a.list[0])
	}
	c := Accept{Agent: r.Agent}
	if i.Run != nil {
		c.Launches = []Launch{{Instance: i, Run: i.Run}}
	}
	for _, p := range r.Ops {
		op := reserve.Op{Kind: reserve.Kind(p.Kind), Instance: i.ID}
		if !p.Silent {
			op.ID = p.ID
		}
		c.Operations = append(c.Operations, op)
	}
	return []Event{CallFailed{Call: c, Error: "connection refused", Unknown: a.has("unknown")}}, nil
}

func (s *scenario) reserved(r *state.Reserved) string {
	text := fmt.Sprintf("%s %s on=%s", r.Instance, r.Phase, r.Agent)
	for _, v := range r.Volumes {
		text += fmt.Sprintf(" %s(%d)", v.ID, v.SizeMB)
		if v.Created {
			text += "!"
		}
		if v.NoResize != "" {
			text += "(stays: " + v.NoResize + ")"
		}
	}
	for _, p := range r.Ops {
		text += " ?" + p.Kind
	}
	if r.Trimmed {
		text += " trimmed"
	}
	if r.Wipe {
		text += " wipe"
	}
	if !r.MissingSince.IsZero() {
		text += " missing=" + s.at(r.MissingSince)
	}
	if r.Error != "" {
		text += fmt.Sprintf(" error=%q", r.Error)
	}
	if !r.RetryAt.IsZero() {
		text += " retry=" + s.at(r.RetryAt)
	}
	return text
}

// bookkeeping prints what an agent has reserved, free and used.
func (s *scenario) bookkeeping() string {
	var out strings.Builder
	for _, id := range sortedKeys(s.books) {
		all := s.books[id].free.clone()
		for _, list := range s.books[id].used {
			for _, r := range list {
				all.add(r)
			}
		}
		var list []string
		for _, r := range all.list() {
			if len(r.Reservations) > 0 {
				list = append(list, resourceText(r))
			}
		}
		sort.Strings(list)
		fmt.Fprintf(&out, "%s: %s\n", id, strings.Join(list, " "))
	}
	return out.String()
}
