package show

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/reach"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Peers gives the instances of an app as they find each other, in the order of their numbers; Index is left to IndexPeers.
func Peers(st *state.State, a *state.App) *client.Peers {
	out := &client.Peers{App: string(a.ID), Peers: []client.Peer{}}
	named := state.TaskID("")
	if p := a.Primary; p != nil {
		out.Term = p.Term
		at := &client.PrimaryPeer{Instance: string(p.Instance), Ordinal: p.Ordinal, Task: string(p.Task), Term: p.Term}
		switch {
		case p.Named:
			out.Primary, named = at, p.Task
		case p.Task != "":
			out.Retiring = at
			out.Why = "task " + at.Task + " was the primary and is not fit now; no other is named before it has ended, its claims are free, or it has given the part up"
		}
	}
	if d := st.Def(a.ID, a.Version); d != nil && d.Spec.Primary && out.Primary == nil && out.Why == "" {
		out.Why = "no instance is up that may be the primary"
		if p := a.Primary; p != nil && p.Instance != "" {
			out.Why = "waits for instance " + string(p.Instance) + ", whose data was the primary's"
		}
	}
	for _, i := range st.InstancesOf(a.ID) {
		p := client.Peer{Ordinal: i.Ordinal, Instance: string(i.ID), State: string(i.Phase)}
		if i.HasTask() && i.Run != nil && !i.Run.Idle {
			p.Task, p.Host = string(i.Run.Task), i.Run.Hostname
			if d := st.Def(a.ID, i.Run.Version); d != nil {
				p.Address, p.Ports = where(d, i.Run)
				p.Healthy = i.Up(&d.Spec)
			}
			p.Primary = named != "" && i.Run.Task == named
		}
		out.Peers = append(out.Peers, p)
	}
	return out
}

// IndexPeers fills in the index, and gives the document as it is sent.
func IndexPeers(p *client.Peers) []byte {
	p.Index = ""
	sum := sha256.Sum256(document.Marshal(p))
	p.Index = hex.EncodeToString(sum[:8])
	return document.Marshal(p)
}

// where is where a run is reached: at its container's own address and ports where it has no host ports.
func where(d *state.Def, r *state.Run) (string, []client.PeerPort) {
	if d.Spec.Container.Network == "container" && len(d.Spec.Ports) == 0 {
		ip, err := netip.ParseAddr(r.ContainerIP)
		if err != nil {
			return "", nil // not told yet
		}
		return ip.String(), containerPorts(d)
	}
	var ports []client.PeerPort
	for n, p := range d.Spec.Ports {
		if n < len(r.Ports) {
			ports = append(ports, client.PeerPort{Name: p.Name, Protocol: p.Protocol, Port: r.Ports[n]})
		}
	}
	return reach.Host(r), ports
}

func containerPorts(d *state.Def) (out []client.PeerPort) {
	var source struct {
		Container struct {
			PortMappings []struct {
				ContainerPort  int `json:"containerPort"`
				Name, Protocol string
			} `json:"portMappings"`
		} `json:"container"`
	}
	if json.Unmarshal(d.Source, &source) != nil {
		return nil
	}
	for _, m := range source.Container.PortMappings {
		if m.ContainerPort > 0 && m.ContainerPort < 1<<16 {
			out = append(out, client.PeerPort{Name: m.Name, Protocol: m.Protocol, Port: m.ContainerPort})
		}
	}
	return out
}
