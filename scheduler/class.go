package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

type (
	// PutClass makes or replaces a class, which is checked. Volumes and apps that there are keep what they have; OnlyNew leaves a class of
	// that name as it is.
	PutClass struct {
		Class   *state.Class
		OnlyNew bool
	}
	// RemoveClass removes a class. Refused while an app names it.
	RemoveClass struct{ Name string }
)

func (PutClass) event()    {}
func (RemoveClass) event() {}

func (w *work) class(name string) *state.Class {
	return look(w, state.KindClass, name, w.s.Classes[name])
}

func (w *work) putClass(e PutClass) *Reply {
	old := w.class(e.Class.Name)
	if old != nil && e.OnlyNew {
		return &Reply{}
	}
	c := *e.Class
	c.UpdatedAt, c.Rev = w.now, 1
	if old != nil {
		c.Rev = old.Rev + 1
	}
	w.put(state.KindClass, c.Name, &c)
	return &Reply{}
}

func (w *work) removeClass(e RemoveClass) *Reply {
	if w.class(e.Name) == nil {
		return refuse(fault.New(fault.NotFound, "class %s does not exist", e.Name))
	}
	var users []string
	for _, id := range sortedKeys(w.s.Apps) {
		a := w.app(id)
		if a == nil || a.Removed {
			continue
		}
		if slices.ContainsFunc(w.spec(id, a.Version).Volumes, func(m state.Mount) bool { return m.Class == e.Name }) {
			users = append(users, string(id))
		}
	}
	if len(users) > 0 {
		more := ""
		if len(users) > 10 {
			more = fmt.Sprintf(" and %d more", len(users)-10)
			users = users[:10]
		}
		return refuse(fault.New(fault.Conflict, "class %s is named by %s%s", e.Name, strings.Join(users, ", "), more))
	}
	w.remove(state.KindClass, e.Name)
	return &Reply{}
}

// sourceOf is what a new volume of an instance begins as a copy of, nil for an empty one.
func (w *work) sourceOf(m *state.Mount, ordinal int) *state.VolumeSource {
	if m.From == nil {
		return nil
	}
	from := &state.VolumeSource{Volume: m.From.Volume, Snapshot: m.From.Snapshot}
	if strings.Contains(from.Volume, volume.Ordinal) {
		from.Volume = volume.NameFor(from.Volume, ordinal, false)
	}
	if v := w.volumeByRef(volume.Ref{Driver: m.Driver, Name: from.Volume}); v != nil {
		from.UID = v.UID
	}
	return from
}

// scaledAway deletes those volumes of an instance that its app wants deleted when it gets smaller; all others stay.
func (w *work) scaledAway(i *state.Instance) {
	a := w.app(i.App)
	if a == nil || a.Removed {
		return // what is to go with the app goes when all of it has stopped
	}
	for _, m := range externals(w.spec(a.ID, a.Version)) {
		if m.Shared || !m.DeleteOnScaleDown {
			continue
		}
		if v := w.volumeByRef(refOf(m, i.Ordinal)); v != nil && v.Instance == i.ID && v.Phase != state.VolumeRemoving {
			w.beginRemove(v)
		}
	}
}

// disposable gives the volumes of an app that its definition wants deleted with it.
func (w *work) disposable(a *state.App) (list []*state.Volume) {
	for _, v := range w.s.VolumesOf(a.ID) {
		for _, m := range externals(w.spec(a.ID, a.Version)) {
			_, ordinal, ok := v.Instance.Split()
			if m.DeleteOnRemove && (ok || m.Shared) && refOf(m, ordinal) == v.Ref {
				list = append(list, v)
			}
		}
	}
	return list
}

// wrongZone says that a site is outside of the zones of a class; "" when it is not.
func wrongZone(s *site, spec *state.Spec) string {
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if zone := s.node.Zone; len(m.Zones) > 0 && !slices.Contains(m.Zones, zone) {
			return fmt.Sprintf("volumes of class %s are for zones %s, this node is in zone %q", m.Class, strings.Join(m.Zones, ", "), zone)
		}
	}
	return ""
}
