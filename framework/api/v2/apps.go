package v2

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/selector"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// appOf gives an app that Marathon would still show: one that is being deleted is gone for it.
func appOf(st *state.State, id state.AppID) *state.App {
	if a := st.Apps[id]; a != nil && !a.Removed {
		return a
	}
	return nil
}

func noApp(id state.AppID) error { return fault.New(fault.NotFound, "App '%s' does not exist", id) }

func pathID(r *http.Request) state.AppID {
	return state.AppID(marathon.AbsoluteID(mux.Vars(r)["id"]))
}

// embed says which parts of an app an answer holds.
type embed struct{ tasks, counts, deployments, readiness, failure, stats bool }

func embedOf(r *http.Request, e embed) embed {
	for _, v := range r.URL.Query()["embed"] {
		for _, prefix := range []string{"group.apps.", "apps.", "app."} {
			v = strings.TrimPrefix(v, prefix)
		}
		switch v {
		case "tasks":
			e.tasks, e.deployments = true, true
		case "counts":
			e.counts = true
		case "deployments":
			e.deployments = true
		case "readiness":
			e.readiness = true
		case "lastTaskFailure":
			e.failure = true
		case "failures":
			e.tasks, e.failure, e.deployments = true, true, true
		case "taskStats":
			e.stats = true
		}
	}
	return e
}

type counts struct {
	Staged    int `json:"tasksStaged"`
	Running   int `json:"tasksRunning"`
	Healthy   int `json:"tasksHealthy"`
	Unhealthy int `json:"tasksUnhealthy"`
}

func countsOf(instances []*state.Instance) (c counts) {
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

// members prints the fields of a struct or map without its braces.
func members(v any) []byte {
	b := document.Marshal(v)
	return b[1 : len(b)-1]
}

// picture is an app at one moment: what is read under the lock, so that it can be printed outside of it.
type picture struct {
	app       *state.App
	def       *state.Def
	instances []*state.Instance
}

// pictureOf takes a picture; nil when the app's definition is not there, which is a bug elsewhere.
func pictureOf(st *state.State, a *state.App) *picture {
	d := st.Def(a.ID, a.Version)
	if d == nil {
		return nil
	}
	return &picture{a, d, slices.Clone(st.InstancesOf(a.ID))}
}

// printApp prints an app as /v2 shows it.
func (s *api) printApp(p *picture, e embed) []byte {
	a, d, instances := p.app, p.def, p.instances
	var extra [][]byte
	if e.counts {
		extra = append(extra, members(countsOf(instances)))
	}
	if e.deployments {
		refs := []desk.DeploymentRef{}
		if a.Deployment != "" {
			refs = append(refs, desk.DeploymentRef{ID: string(a.Deployment)})
		}
		extra = append(extra, members(map[string]any{"deployments": refs}))
	}
	if e.tasks {
		extra = append(extra, members(map[string]any{"tasks": tasksOf(nil, instances)}))
	}
	if e.readiness {
		extra = append(extra, []byte(`"readinessCheckResults":[]`))
	}
	if f := a.LastTaskFailure; e.failure && f != nil {
		extra = append(extra, members(map[string]any{"lastTaskFailure": taskFailure{AppID: a.ID, Host: f.Host, Message: f.Message, State: f.State,
			TaskID: f.Task, Timestamp: desk.Stamp(f.At), Version: f.Version, SlaveID: f.Agent}}))
	}
	if e.stats {
		extra = append(extra, members(map[string]any{"taskStats": s.taskStats(a, instances)}))
	}
	return definition.Print(d.Source, definition.Live{Instances: a.Instances, Version: a.Version, LastScalingAt: desk.Stamp(a.LastScalingAt),
		LastConfigChangeAt: desk.Stamp(a.LastConfigChangeAt), Extra: bytes.Join(extra, []byte(","))})
}

func (s *api) listApps(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	match, err := selector.Parse(q.Get("label"))
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	cmd, id := strings.ToLower(q.Get("cmd")), strings.ToLower(q.Get("id"))
	e := embedOf(r, embed{counts: true, deployments: true})
	s.answerApps(w, r, "apps", e, func(a *state.App, spec *state.Spec) bool {
		return strings.Contains(strings.ToLower(string(a.ID)), id) && (cmd == "" || strings.Contains(strings.ToLower(spec.Cmd), cmd)) && match(spec.Labels)
	})
}

// answerApps prints the apps that a filter lets through, sorted by id, as {name: [...]}.
func (s *api) answerApps(w http.ResponseWriter, r *http.Request, name string, e embed, want func(*state.App, *state.Spec) bool) {
	var apps []*picture
	s.Core.View(func(st *state.State) {
		for _, a := range st.Apps {
			if d := st.Def(a.ID, a.Version); d != nil && !a.Removed && want(a, &d.Spec) {
				apps = append(apps, pictureOf(st, a))
			}
		}
	})
	slices.SortFunc(apps, func(x, y *picture) int { return cmp.Compare(x.app.ID, y.app.ID) })
	var b bytes.Buffer
	b.WriteString(`{` + string(document.Quote(name)) + `:[`)
	for i, p := range apps {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(s.printApp(p, e))
	}
	b.WriteString("]}")
	s.Raw(w, r, http.StatusOK, b.Bytes())
}

func (s *api) showApp(w http.ResponseWriter, r *http.Request) {
	if group, ok := groupOf(r); ok {
		s.answerApps(w, r, "*", embedOf(r, embed{counts: true, deployments: true}), func(a *state.App, _ *state.Spec) bool { return below(a.ID, group) })
		return
	}
	id := pathID(r)
	e := embedOf(r, embed{tasks: true, counts: true, deployments: true, failure: true})
	var out []byte
	s.Core.View(func(st *state.State) {
		if a := appOf(st, id); a != nil {
			if p := pictureOf(st, a); p != nil {
				out = s.printApp(p, e)
			}
		}
	})
	if out == nil {
		s.Fail(w, r, noApp(id))
		return
	}
	s.Raw(w, r, http.StatusOK, slices.Concat([]byte(`{"app":`), out, []byte(`}`)))
}

// groupOf reads "{group}/*" in the place of an app id.
func groupOf(r *http.Request) (group string, ok bool) {
	id := mux.Vars(r)["id"]
	if id != "*" && !strings.HasSuffix(id, "/*") {
		return "", false
	}
	return strings.TrimSuffix(marathon.AbsoluteID(strings.TrimSuffix(id, "*")), "/"), true
}

func below(id state.AppID, group string) bool { return strings.HasPrefix(string(id), group+"/") }

func (s *api) appVersions(w http.ResponseWriter, r *http.Request) {
	id := pathID(r)
	versions := []string{}
	found := false
	s.Core.View(func(st *state.State) {
		if appOf(st, id) == nil {
			return
		}
		found = true
		for v := range st.Defs[id] {
			versions = append(versions, v)
		}
	})
	if !found {
		s.Fail(w, r, noApp(id))
		return
	}
	slices.Sort(versions)
	slices.Reverse(versions)
	s.JSON(w, r, http.StatusOK, map[string]any{"versions": versions})
}

func (s *api) appVersion(w http.ResponseWriter, r *http.Request) {
	id, text := pathID(r), mux.Vars(r)["version"]
	version, err := desk.ParseVersion(text)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	var out []byte
	s.Core.View(func(st *state.State) {
		a, d := appOf(st, id), st.Def(id, version)
		switch {
		case a == nil || d == nil:
		case version == a.Version:
			out = s.printApp(pictureOf(st, a), embed{})
		default:
			out = definition.Print(d.Source, definition.Live{Instances: storedInstances(d), Version: version})
		}
	})
	if out == nil {
		s.Fail(w, r, fault.New(fault.NotFound, "App '%s' does not exist in version %s", id, version))
		return
	}
	s.Raw(w, r, http.StatusOK, out)
}
