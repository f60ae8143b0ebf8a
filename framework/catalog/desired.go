package catalog

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/framework/reach"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Key names a service entry: an id is unique on its node only.
type Key struct{ Node, ID string }

// Service is one service entry with its health check. It is never changed once it is made.
type Service struct {
	Key
	Name, Address string
	Port          int // 0 for none
	Tags          []string
	Meta          map[string]string
	Status        string // passing, warning or critical
	// lock is what must be held for its tag `primary`; nil without the tag.
	lock *lock
}

// equal tells whether Consul has it as it should be.
func (s *Service) equal(o *Service) bool {
	return s.Key == o.Key && s.Name == o.Name && s.Address == o.Address && s.Port == o.Port && s.Status == o.Status &&
		slices.Equal(s.Tags, o.Tags) && maps.Equal(s.Meta, o.Meta)
}

// Wanted is what Consul should have of a cluster: addresses of nodes by their names, and services.
type Wanted struct {
	Cluster  string
	Nodes    map[string]string
	Services map[Key]*Service
}

// prefix begins the names of a cluster's nodes and the ids of its services.
func prefix(cluster string) string { return "holdfast-" + valid(cluster[:min(8, len(cluster))]) + "-" }

// Desired works out what Consul should have, from a state alone.
func Desired(s *state.State, cluster string) *Wanted {
	b := newBuilder(cluster)
	return b.render(b.collect(s))
}

// member is a running instance, and what its services are made of.
type member struct {
	i       *state.Instance
	def     *state.Def
	volumes string
	term    uint64 // it is its app's primary, in this term; 0: it is not
	same    *built // what was made of it before, if it is as it was
}

// built is what was made of an instance.
type built struct {
	i        *state.Instance
	def      *state.Def
	term     uint64
	names    int // builder.version at the time
	services []*Service
}

// builder makes Wanted again and again, and makes anew only what belongs to values that were replaced.
type builder struct {
	cluster  string
	made     map[state.InstanceID]*built
	outlines map[*state.Def]*outline
	services map[source]string // names of services
	hosts    map[source]string // names of nodes
	version  int               // of both
}

func newBuilder(cluster string) *builder {
	return &builder{cluster: cluster, made: map[state.InstanceID]*built{}}
}

// material is what render needs of a state.
type material struct {
	members []member
	defs    map[*state.Def]bool // of all apps and of the running instances
}

// collect takes out of a state what render needs. It keeps no maps of it, only values, and is quick: it is called under a lock.
func (b *builder) collect(s *state.State) material {
	m := material{defs: make(map[*state.Def]bool, len(s.Apps)), members: make([]member, 0, len(s.Instances))}
	for id, a := range s.Apps {
		if d := s.Def(id, a.Version); d != nil && !a.Removed {
			m.defs[d] = true
		}
	}
	for id, i := range s.Instances {
		if !serves(s, i) {
			continue
		}
		d := s.Def(i.App, i.Run.Version)
		if d == nil {
			continue
		}
		m.defs[d] = true
		n := member{i: i, def: d, term: termOf(s.Apps[i.App], i)}
		if old := b.made[id]; old != nil && old.i == i && old.def == d && old.term == n.term {
			n.same = old
		} else {
			n.volumes = volumeNames(s, i)
		}
		m.members = append(m.members, n)
	}
	return m
}

// serves tells whether an instance is there to be found: it runs, and nothing says that its host is lost. Where the node helper is dead,
// processes with exclusive volumes have been stopped; others go on.
func serves(s *state.State, i *state.Instance) bool {
	if i.Phase != state.PhaseRunning || i.Run == nil {
		return false
	}
	if a := s.Agents[i.Run.Agent]; a != nil && !a.LostAt.IsZero() {
		return false
	}
	n := s.Nodes[i.Run.Node]
	return n == nil || n.Alive || len(i.Run.Claims) == 0
}

func volumeNames(s *state.State, i *state.Instance) string {
	var list []string
	for _, v := range s.VolumesOf(i.App) {
		if v.Instance == i.ID || v.Shared {
			list = append(list, v.Ref.Name)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// render makes Wanted out of what was collected.
func (b *builder) render(m material) *Wanted {
	b.name(m)
	w := &Wanted{Cluster: b.cluster, Nodes: map[string]string{}, Services: make(map[Key]*Service, len(m.members))}
	made := make(map[state.InstanceID]*built, len(m.members))
	for _, n := range m.members {
		host := reach.Host(n.i.Run)
		if host == "" {
			continue
		}
		e := n.same
		if e == nil || e.names != b.version {
			if e != nil && len(e.services) > 0 { // only a name is new
				n.volumes = e.services[0].Meta[metaVolumes]
			}
			e = &built{i: n.i, def: n.def, term: n.term, names: b.version, services: b.make(n, host)}
		}
		made[n.i.ID] = e
		for _, s := range e.services {
			w.Services[s.Key] = s
			if old, ok := w.Nodes[s.Node]; !ok || host < old {
				w.Nodes[s.Node] = host
			}
		}
	}
	b.made = made
	return w
}

// name names services and nodes, and raises version when any name is new.
func (b *builder) name(m material) {
	outlines := make(map[*state.Def]*outline, len(m.defs))
	same := len(m.defs) == len(b.outlines)
	for d := range m.defs {
		o := b.outlines[d]
		if o == nil {
			o, same = outlineOf(d), false
		}
		outlines[d] = o
	}
	b.outlines = outlines
	services := b.services
	if !same {
		all := make(map[source]bool, len(outlines))
		for _, o := range outlines {
			for _, s := range o.services {
				all[s.source] = true
			}
		}
		services = names(all)
	}
	hosts := map[source]bool{}
	for _, n := range m.members {
		hosts[b.host(n.i.Run)] = true
	}
	nodes := b.hosts
	if len(hosts) != len(nodes) || !sameKeys(hosts, nodes) {
		nodes = names(hosts)
	}
	if b.services == nil || !maps.Equal(services, b.services) || !maps.Equal(nodes, b.hosts) {
		b.version++
	}
	b.services, b.hosts = services, nodes
}

func sameKeys(a map[source]bool, b map[source]string) bool {
	for k := range a {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return true
}

// host is where the name of a node entry comes from.
func (b *builder) host(r *state.Run) source {
	return source{text: prefix(b.cluster) + r.Hostname, owner: "host"}
}

// make gives the services of one instance.
func (b *builder) make(n member, host string) (out []*Service) {
	r, o := n.i.Run, b.outlines[n.def]
	address := host
	if o.inside {
		ip, err := netip.ParseAddr(r.ContainerIP)
		if err != nil {
			return nil // not told yet
		}
		address = ip.String()
	}
	for _, k := range o.services {
		s := &Service{Key: Key{b.hosts[b.host(r)], prefix(b.cluster) + string(n.i.ID) + k.suffix}, Name: b.services[k.source], Address: address,
			Status: health(o, r), Tags: append([]string{fmt.Sprintf("instance-%d", n.i.Ordinal)}, k.tags...)}
		switch {
		case o.inside && k.port >= 0:
			s.Port = k.port
		case k.port >= len(r.Ports):
			continue
		case k.port >= 0:
			s.Port = r.Ports[k.port]
		}
		s.Meta = maps.Clone(k.meta)
		if s.Meta == nil {
			s.Meta = map[string]string{}
		}
		for key, value := range map[string]string{metaCluster: b.cluster, metaApp: string(n.i.App), metaInstance: string(n.i.ID),
			metaTask: string(r.Task), metaVersion: r.Version, metaVolumes: n.volumes} {
			if value != "" {
				s.Meta[key] = cut(value, maxMetaValue)
			}
		}
		out = append(out, b.named(s, n))
	}
	return out
}

// health is the result of checks as Consul calls it. Without checks a running task is well; before the first result, or while it is not ready,
// it is neither. An idle command of a paused instance serves nobody.
func health(o *outline, r *state.Run) string {
	switch {
	case r.Idle, r.Healthy != nil && !*r.Healthy:
		return "critical"
	case r.Healthy == nil && o.checked, o.ready && !r.Ready:
		return "warning"
	}
	return "passing"
}

// cut shortens a text to at most n bytes, between characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
