package mesos

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	mmaster "github.com/mesos/mesos-go/api/v1/lib/master"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Census is what a master knows of frameworks, agents and tasks that are not over: for who rebuilds a state that was lost.
type Census struct {
	Master     string
	Frameworks []CensusFramework
	Agents     map[state.AgentID]CensusAgent
	Tasks      []CensusTask
}

// CensusFramework is a framework that is registered, or that has tasks.
type CensusFramework struct {
	ID, Name  string
	Roles     []string
	Connected bool
}

// CensusAgent is a registered agent; Resources are all of it.
type CensusAgent struct {
	state.Agent
	Resources []state.Resource
}

// CensusTask is a task that is not over, as far as the master knows.
type CensusTask struct {
	ID        state.TaskID
	Framework string
	Agent     state.AgentID
	State     string // TASK_…
	Healthy   *bool
	// ContainerIP is "" when no status told it. Ports are those of the discovery information, in its order, otherwise of the resources.
	ContainerIP       string
	Ports             []int
	StagedAt, BeganAt time.Time
	Resources         []state.Resource
}

// maxCensus bounds the master's answer: 100,000 tasks are some 200 MB.
const maxCensus = 1 << 30

// TakeCensus asks the leading master for its state (GET_STATE).
func (c *Client) TakeCensus(ctx context.Context) (*Census, error) {
	defer c.detect(ctx)()
	at, ok := c.pick(ctx, func(scheduler.Event) {})
	if !ok {
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "no master was found")
	}
	where := &url.URL{Scheme: at.url.Scheme, Host: at.url.Host, Path: "/api/v1"}
	for range 4 {
		raw, next, err := c.askState(ctx, where)
		if next != nil {
			where = next
			continue
		}
		if err != nil {
			return nil, fault.Op(err, "ask master %s for its state", where.Host)
		}
		var resp mmaster.Response
		if err := resp.Unmarshal(raw); err != nil || resp.GetState == nil {
			return nil, fault.New(fault.Invalid, "master %s answered GET_STATE with something else: %v", where.Host, err)
		}
		return censusOf(where.Host, resp.GetState), nil
	}
	return nil, fault.New(fault.Unavailable, "the masters redirect in a circle")
}

// askState sends GET_STATE. next is where a master that does not lead sends us.
func (c *Client) askState(ctx context.Context, where *url.URL) (raw []byte, next *url.URL, err error) {
	body, err := (&mmaster.Call{Type: mmaster.Call_GET_STATE}).Marshal()
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where.String(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Accept", "application/x-protobuf")
	resp, err := authorized(c.http, req, c.c.Credential)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, err, "no answer")
	}
	defer resp.Body.Close()
	if to, err := resp.Location(); err == nil && resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, &url.URL{Scheme: where.Scheme, Host: to.Host, Path: where.Path}, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fault.New(fault.FromHTTPStatus(resp.StatusCode), "it answered %d: %s", resp.StatusCode, responseText(resp))
	}
	raw, err = io.ReadAll(io.LimitReader(resp.Body, maxCensus))
	return raw, nil, fault.Wrap(fault.Unavailable, err, "read its answer")
}

func censusOf(master string, s *mmaster.Response_GetState) *Census {
	out := &Census{Master: master, Agents: map[state.AgentID]CensusAgent{}}
	if f := s.GetFrameworks; f != nil {
		for i := range f.Frameworks {
			info := &f.Frameworks[i].FrameworkInfo
			x := CensusFramework{Name: info.Name, Roles: info.Roles, Connected: f.Frameworks[i].Connected}
			if info.ID != nil {
				x.ID = info.ID.Value
			}
			if len(x.Roles) == 0 && info.Role != nil {
				x.Roles = []string{*info.Role}
			}
			out.Frameworks = append(out.Frameworks, x)
		}
	}
	if a := s.GetAgents; a != nil {
		for i := range a.Agents {
			x := agentOfCensus(&a.Agents[i])
			out.Agents[x.ID] = x
		}
	}
	if t := s.GetTasks; t != nil {
		for _, list := range [][]mesos.Task{t.PendingTasks, t.Tasks, t.UnreachableTasks, t.OrphanTasks} {
			for i := range list {
				out.Tasks = append(out.Tasks, taskOfCensus(&list[i]))
			}
		}
	}
	return out
}

func agentOfCensus(a *mmaster.Response_GetAgents_Agent) CensusAgent {
	info := &a.AgentInfo
	out := CensusAgent{Agent: state.Agent{Hostname: info.Hostname, Attributes: map[string]string{}}}
	if info.ID != nil {
		out.ID = state.AgentID(info.ID.Value)
	}
	if a.PID != nil {
		if _, addr, ok := strings.Cut(*a.PID, "@"); ok {
			if _, _, err := net.SplitHostPort(addr); err == nil {
				out.URL = "http://" + addr
			}
		}
	}
	if d := info.Domain; d != nil && d.FaultDomain != nil {
		out.Region, out.Zone = d.FaultDomain.Region.Name, d.FaultDomain.Zone.Name
	}
	for i := range info.Attributes {
		out.Attributes[info.Attributes[i].Name] = attributeText(&info.Attributes[i])
	}
	for i := range a.TotalResources {
		if r, ok := convertResource(&a.TotalResources[i]); ok {
			out.Resources = append(out.Resources, r)
		}
	}
	return out
}

func taskOfCensus(t *mesos.Task) CensusTask {
	out := CensusTask{ID: state.TaskID(t.TaskID.Value), Framework: t.FrameworkID.Value, Agent: state.AgentID(t.AgentID.Value), State: "TASK_STAGING"}
	if t.State != nil {
		out.State = t.State.String()
	}
	for i := range t.Statuses {
		s := &t.Statuses[i]
		if s.Timestamp != nil {
			at := time.Unix(0, int64(*s.Timestamp*float64(time.Second))).UTC()
			if out.StagedAt.IsZero() || at.Before(out.StagedAt) {
				out.StagedAt = at
			}
			if s.State != nil && s.State.String() == "TASK_RUNNING" && (out.BeganAt.IsZero() || at.Before(out.BeganAt)) {
				out.BeganAt = at
			}
		}
		if s.Healthy != nil {
			healthy := *s.Healthy
			out.Healthy = &healthy
		}
		if cs := s.ContainerStatus; cs != nil {
			for _, n := range cs.NetworkInfos {
				for _, ip := range n.IPAddresses {
					if text := ip.GetIPAddress(); text != "" {
						out.ContainerIP = text
					}
				}
			}
		}
	}
	for i := range t.Resources {
		if r, ok := convertResource(&t.Resources[i]); ok {
			out.Resources = append(out.Resources, r)
		}
	}
	out.Ports = portsOfCensus(t, out.Resources)
	return out
}

// portsOfCensus gives the host ports in the order of the app's: the discovery information is in that order, the resources are not.
func portsOfCensus(t *mesos.Task, resources []state.Resource) (ports []int) {
	have := map[int]bool{}
	var sorted []int
	for _, r := range resources {
		if r.Name != "ports" {
			continue
		}
		for _, g := range r.Ranges {
			for p := g.Begin; p <= g.End && len(sorted) < 1000; p++ {
				sorted = append(sorted, int(p))
				have[int(p)] = true
			}
		}
	}
	if t.Discovery != nil && t.Discovery.Ports != nil {
		seen := map[int]bool{}
		for _, p := range t.Discovery.Ports.Ports {
			if n := int(p.Number); have[n] && !seen[n] {
				seen[n] = true
				ports = append(ports, n)
			}
		}
	}
	if len(ports) == len(sorted) {
		return ports
	}
	return sorted
}
