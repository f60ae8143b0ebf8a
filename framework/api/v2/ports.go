package v2

import (
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// portBook remembers the service ports of definitions, which on container networks only their text has: a change of one app must not
// read those of all others. The turn to change apps is held by who uses it.
type portBook map[state.AppID]bookedPorts

type bookedPorts struct {
	def   *state.Def
	ports []int
}

// portUse counts how many apps have each service port, for the time of one command.
type portUse struct {
	users map[int]int
	of    map[state.AppID][]int
}

// servicePorts tells what service ports all apps have.
func (s *api) servicePorts() *portUse {
	u := &portUse{users: map[int]int{}, of: map[state.AppID][]int{}}
	book := portBook{}
	s.Core.View(func(st *state.State) {
		for id, a := range st.Apps {
			d := st.Def(id, a.Version)
			if d == nil {
				continue
			}
			if b, ok := s.book[id]; ok && b.def == d {
				book[id] = b
			} else {
				book[id] = bookedPorts{def: d}
			}
		}
	})
	for id, b := range book {
		if b.ports == nil {
			b.ports = append([]int{}, picture.ServicePorts(b.def)...)
			book[id] = b
		}
		u.of[id] = b.ports
		u.count(b.ports, 1)
	}
	s.book = book
	return u
}

func (u *portUse) count(ports []int, by int) {
	for _, p := range ports {
		u.users[p] += by
	}
}

// assign gives an app the service ports that it leaves open; false when there are none left.
func (u *portUse) assign(a, old *marathon.App) bool {
	id := state.AppID(a.ID)
	u.count(u.of[id], -1)
	ok := a.AssignServicePorts(old, func(port int) bool { return u.users[port] > 0 })
	u.of[id] = a.ServicePorts()
	u.count(u.of[id], 1)
	return ok
}
