// Package picture is how the state is printed in Marathon's shapes: apps, tasks, groups. A picture is taken under the framework's
// read lock, at the price of a few pointers, and printed outside of it, piece by piece, so that an answer about everything there is
// neither stops the framework nor is in memory as a whole.
package picture

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Embed says which parts of an app an answer holds.
type Embed struct {
	Tasks, Counts, Deployments, Readiness, Failure, Stats bool
	// Checks gives the results of checks; nil for none.
	Checks Checks
}

// EmbedOf adds to e what a request asks for with ?embed=; what is not known is ignored, as in Marathon.
func EmbedOf(r *http.Request, e Embed) Embed {
	for _, v := range r.URL.Query()["embed"] {
		for _, prefix := range []string{"group.apps.", "apps.", "app."} {
			v = strings.TrimPrefix(v, prefix)
		}
		switch v {
		case "tasks":
			e.Tasks, e.Deployments = true, true
		case "counts":
			e.Counts = true
		case "deployments":
			e.Deployments = true
		case "readiness":
			e.Readiness = true
		case "lastTaskFailure":
			e.Failure = true
		case "failures":
			e.Tasks, e.Failure, e.Deployments = true, true, true
		case "taskStats":
			e.Stats = true
		}
	}
	return e
}

// App is an app at one moment.
type App struct {
	App       *state.App
	Def       *state.Def
	Instances []*state.Instance
	// older are the definitions that runs of other versions have, for their service ports; nil when there are none.
	older map[string]*state.Def
}

// Of takes a picture; nil when the app's definition is not there, which is a bug elsewhere. The caller holds the read lock.
func Of(st *state.State, a *state.App) *App {
	d := st.Def(a.ID, a.Version)
	if d == nil {
		return nil
	}
	p := &App{App: a, Def: d, Instances: slices.Clone(st.InstancesOf(a.ID))}
	for _, i := range p.Instances {
		if i.Run == nil || i.Run.Version == a.Version {
			continue
		}
		if p.older == nil {
			p.older = map[string]*state.Def{}
		}
		p.older[i.Run.Version] = st.Def(a.ID, i.Run.Version)
	}
	return p
}

// Apps takes pictures of the apps that are wanted, in no order: Sort them outside of the lock. Apps that are being deleted are gone for Marathon.
func Apps(st *state.State, want func(*state.App, *state.Def) bool) (list []*App) {
	for _, a := range st.Apps {
		if d := st.Def(a.ID, a.Version); d != nil && !a.Removed && !d.Spec.Pod() && want(a, d) {
			list = append(list, Of(st, a))
		}
	}
	return list
}

// Sort sorts pictures by id.
func Sort(list []*App) {
	slices.SortFunc(list, func(x, y *App) int { return cmp.Compare(x.App.ID, y.App.ID) })
}

// Counts are how many tasks an app has.
type Counts struct {
	Staged    int `json:"tasksStaged"`
	Running   int `json:"tasksRunning"`
	Healthy   int `json:"tasksHealthy"`
	Unhealthy int `json:"tasksUnhealthy"`
}

// CountsOf counts tasks.
func CountsOf(instances []*state.Instance) (c Counts) {
	for _, i := range instances {
		switch i.Phase {
		case state.PhaseLaunching, state.PhaseStaging:
			c.Staged++
		case state.PhaseRunning:
			c.Running++
			if i.Run != nil && i.Run.Healthy != nil {
				if *i.Run.Healthy {
					c.Healthy++
				} else {
					c.Unhealthy++
				}
			}
		}
	}
	return c
}

type taskFailure struct {
	AppID     state.AppID   `json:"appId"`
	Host      string        `json:"host"`
	Message   string        `json:"message"`
	State     string        `json:"state"`
	TaskID    state.TaskID  `json:"taskId"`
	Timestamp string        `json:"timestamp"`
	Version   string        `json:"version"`
	SlaveID   state.AgentID `json:"slaveId,omitempty"`
}

// Members prints the fields of a struct or map without its braces.
func Members(v any) []byte {
	b := document.Marshal(v)
	return b[1 : len(b)-1]
}

// Print prints an app as /v2 shows it.
func (p *App) Print(e Embed, now time.Time) []byte {
	a := p.App
	var extra bytes.Buffer
	add := func(name string, v any) {
		if extra.Len() > 0 {
			extra.WriteByte(',')
		}
		if name == "" {
			extra.Write(Members(v))
			return
		}
		extra.WriteString(`"` + name + `":`)
		extra.Write(document.Marshal(v))
	}
	if e.Counts {
		add("", CountsOf(p.Instances))
	}
	if e.Deployments {
		refs := []desk.DeploymentRef{}
		if a.Deployment != "" {
			refs = append(refs, desk.DeploymentRef{ID: string(a.Deployment)})
		}
		add("deployments", refs)
	}
	if e.Tasks {
		add("tasks", Tasks(p.Instances, e.Checks))
	}
	if e.Readiness {
		add("readinessCheckResults", ReadinessResults(p.Instances, e.Checks))
	}
	if f := a.LastTaskFailure; e.Failure && f != nil {
		add("lastTaskFailure", taskFailure{AppID: a.ID, Host: f.Host, Message: f.Message, State: f.State,
			TaskID: f.Task, Timestamp: desk.Stamp(f.At), Version: f.Version, SlaveID: f.Agent})
	}
	if e.Stats {
		add("taskStats", statsOf(a, p.Instances, now))
	}
	return definition.Print(p.Def.Source, definition.Live{Instances: a.Instances, Version: a.Version, LastScalingAt: desk.Stamp(a.LastScalingAt),
		LastConfigChangeAt: desk.Stamp(a.LastConfigChangeAt), Extra: extra.Bytes()})
}

// PrintApps prints apps as an array. It ends early when nobody reads any more.
func PrintApps(w io.Writer, apps []*App, e Embed, now time.Time) {
	_, _ = w.Write([]byte{'['})
	for i, p := range apps {
		if i > 0 {
			_, _ = w.Write([]byte{','})
		}
		if _, err := w.Write(p.Print(e, now)); err != nil {
			return
		}
	}
	_, _ = w.Write([]byte{']'})
}
