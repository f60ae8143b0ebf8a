package v2

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func (s *api) appTasks(w http.ResponseWriter, r *http.Request) {
	group, isGroup := groupOf(r)
	id := pathID(r)
	want := func(a state.AppID) bool { return a == id || isGroup && picture.Below(a, group) }
	var apps []*picture.App
	s.Core.View(func(st *state.State) {
		if isGroup {
			apps = picture.Apps(st, func(a *state.App, _ *state.Def) bool { return want(a.ID) })
		} else if a := appOf(st, id); a != nil {
			apps = append(apps, picture.Of(st, a))
		}
	})
	switch {
	case !isGroup && len(apps) == 0:
		s.Fail(w, r, noApp(id))
	case plainText(r):
		s.taskTable(w, r, want)
	default:
		s.answerTasks(w, r, apps, func(p *picture.App) []picture.Task { return picture.Tasks(p.Instances, s.Checks) })
	}
}

// answerTasks prints the tasks of apps, sorted by app and number.
func (s *api) answerTasks(w http.ResponseWriter, r *http.Request, apps []*picture.App, tasks func(*picture.App) []picture.Task) {
	picture.Sort(apps)
	out := s.Begin(w, r)
	defer out.Close()
	out.Text(`{"tasks":[`)
	first := true
	for _, p := range apps {
		for _, t := range tasks(p) {
			if !first {
				out.Text(",")
			}
			first = false
			if _, err := out.Write(document.Marshal(t)); err != nil {
				return
			}
		}
	}
	out.Text("]}")
}

func sortedApps(st *state.State) []*state.App {
	apps := make([]*state.App, 0, len(st.Apps))
	for _, a := range st.Apps {
		apps = append(apps, a)
	}
	slices.SortFunc(apps, func(x, y *state.App) int { return cmp.Compare(x.ID, y.ID) })
	return apps
}

// plainText tells whether text is wanted rather than JSON, as old haproxy bridges do.
func plainText(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "text/plain") && !strings.Contains(accept, "json")
}

func (s *api) listTasks(w http.ResponseWriter, r *http.Request) {
	if plainText(r) {
		s.taskTable(w, r, func(state.AppID) bool { return true })
		return
	}
	q := r.URL.Query()
	want := map[string]bool{}
	for _, v := range append(q["status"], q["status[]"]...) {
		switch v {
		case "running":
			want["TASK_RUNNING"] = true
		case "staging":
			want["TASK_STAGING"], want["TASK_STARTING"] = true, true
		}
	}
	var apps []*picture.App
	s.Core.View(func(st *state.State) {
		for _, a := range st.Apps { // those that are being deleted have tasks still
			if p := picture.Of(st, a); p != nil && !p.Def.Spec.Pod() {
				apps = append(apps, p)
			}
		}
	})
	s.answerTasks(w, r, apps, func(p *picture.App) []picture.Task {
		return slices.DeleteFunc(p.TasksWithPorts(s.Checks), func(t picture.Task) bool { return len(want) > 0 && !want[t.State] })
	})
}

// taskTable prints "app<TAB>service port<TAB>host:port<TAB>…", one line per service port.
func (s *api) taskTable(w http.ResponseWriter, _ *http.Request, want func(state.AppID) bool) {
	var b strings.Builder
	s.Core.View(func(st *state.State) {
		for _, a := range sortedApps(st) {
			d := st.Def(a.ID, a.Version)
			if d == nil || a.Removed || d.Spec.Pod() || !want(a.ID) {
				continue
			}
			writeAppTable(&b, d, st.InstancesOf(a.ID))
		}
	})
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(b.String()))
}

func writeAppTable(b *strings.Builder, d *state.Def, instances []*state.Instance) {
	name := d.App.Safe()
	ports := picture.ServicePorts(d)
	if len(ports) == 0 {
		fmt.Fprintf(b, "%s\t \t", name)
		for _, i := range instances {
			if i.Phase == state.PhaseRunning && i.Run != nil {
				fmt.Fprintf(b, "%s\t", i.Run.Hostname)
			}
		}
		b.WriteString("\n")
	}
	for n, p := range ports {
		fmt.Fprintf(b, "%s\t%d\t", name, p)
		for _, i := range instances {
			if i.Phase == state.PhaseRunning && i.Run != nil && n < len(i.Run.Ports) {
				fmt.Fprintf(b, "%s:%d\t", i.Run.Hostname, i.Run.Ports[n])
			}
		}
		b.WriteString("\n")
	}
}

func (s *api) killTask(w http.ResponseWriter, r *http.Request) {
	id, taskID := pathID(r), state.TaskID(mux.Vars(r)["task"])
	s.kill(w, r, id, "task", fault.New(fault.NotFound, "Task '%s' does not exist", taskID), func(i *state.Instance) bool { return i.Run.Task == taskID || string(i.ID) == string(taskID) })
}

func (s *api) killAppTasks(w http.ResponseWriter, r *http.Request) {
	host := r.URL.Query().Get("host")
	s.kill(w, r, pathID(r), "tasks", nil, func(i *state.Instance) bool { return host == "" || host == "*" || i.Run.Hostname == host })
}

// kill ends the tasks of one app that are chosen. With scale the app gets smaller by as many.
func (s *api) kill(w http.ResponseWriter, r *http.Request, id state.AppID, name string, none error, chosen func(*state.Instance) bool) {
	scale, wipe, ok := s.killMode(w, r)
	if !ok {
		return
	}
	var victims []*state.Instance
	var tasks []picture.Task
	found := false
	s.Core.View(func(st *state.State) {
		if appOf(st, id) == nil {
			return
		}
		found = true
		for _, i := range st.InstancesOf(id) {
			if picture.HasTask(i) && chosen(i) {
				victims = append(victims, i)
			}
		}
		tasks = picture.Tasks(victims, s.Checks)
	})
	switch {
	case !found:
		s.Fail(w, r, noApp(id))
		return
	case len(victims) == 0 && none != nil:
		s.Fail(w, r, none)
		return
	}
	if scale {
		s.scaleAway(w, r, id, victims)
		return
	}
	if err := s.restartEach(r.Context(), victims, wipe); err != nil {
		s.Fail(w, r, err)
		return
	}
	if name == "task" {
		s.JSON(w, r, http.StatusOK, map[string]any{"task": tasks[0]})
		return
	}
	s.JSON(w, r, http.StatusOK, map[string]any{"tasks": tasks})
}

// killMode reads scale and wipe.
func (s *api) killMode(w http.ResponseWriter, r *http.Request) (scale, wipe, ok bool) {
	scale, wipe = desk.Yes(r, "scale", false), desk.Yes(r, "wipe", false)
	if scale && wipe {
		s.BadRequest(w, r, "You cannot use scale and wipe at the same time.")
		return false, false, false
	}
	return scale, wipe, true
}

// restartEach kills the runs of instances; each instance keeps its number and volumes and runs again. wipe destroys its local volumes and
// gives back what is reserved for it; external volumes have lives of their own and stay.
func (s *api) restartEach(ctx context.Context, victims []*state.Instance, wipe bool) error {
	ctx, cancel := context.WithTimeout(ctx, desk.CommandTime)
	defer cancel()
	for _, i := range victims {
		// One that ended by itself in the meantime is as good as killed.
		if _, err := s.Do(ctx, scheduler.RestartInstance{Instance: i.ID, Wipe: wipe}); err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
			return err
		}
	}
	return nil
}

// scaleAway makes an app smaller by the instances named; their numbers are left out until it grows again.
func (s *api) scaleAway(w http.ResponseWriter, r *http.Request, id state.AppID, victims []*state.Instance) {
	e := scheduler.ScaleApp{App: id, Force: desk.Yes(r, "force", false)}
	for _, i := range victims {
		e.Kill = append(e.Kill, i.ID)
	}
	if len(e.Kill) == 0 { // nothing to kill: nothing changes, and is answered as Marathon does
		s.Core.View(func(st *state.State) {
			if a := appOf(st, id); a != nil {
				e.Instances = a.Instances
			}
		})
	}
	s.command(w, r, e)
}

func (s *api) killTasks(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	run := &document.Run{}
	in := run.Read(v)
	in.Require("ids")
	ids := in.Strs("ids")
	in.Close()
	desk.Warn(w, run.Warnings)
	if err := run.Problems.Err("Invalid JSON"); err != nil {
		s.Fail(w, r, err)
		return
	}
	scale, wipe, ok := s.killMode(w, r)
	if !ok {
		return
	}
	var victims []*state.Instance
	var tasks []picture.Task
	bad := ""
	s.Core.View(func(st *state.State) {
		victims, bad = findTasks(st, ids)
		tasks = picture.Tasks(victims, s.Checks)
	})
	if bad != "" {
		s.BadRequest(w, r, "Invalid task id '%s'. [taskId %s no valid identifier]", bad, bad)
		return
	}
	if scale {
		s.scaleMany(w, r, victims)
		return
	}
	if err := s.restartEach(r.Context(), victims, wipe); err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, map[string]any{"tasks": tasks})
}

// findTasks finds tasks by id. Ids of tasks that are no more are skipped; bad is one that is no task id at all.
func findTasks(st *state.State, ids []string) (victims []*state.Instance, bad string) {
	for _, id := range ids {
		if _, _, ok := state.ParseTaskID(state.TaskID(id)); !ok {
			return nil, id
		}
		if i := st.InstanceByTask(state.TaskID(id)); i != nil && picture.HasTask(i) && !slices.Contains(victims, i) {
			victims = append(victims, i)
		}
	}
	return victims, ""
}

func (s *api) scaleMany(w http.ResponseWriter, r *http.Request, victims []*state.Instance) {
	if len(victims) == 0 {
		s.JSON(w, r, http.StatusOK, s.result(w, scheduler.Reply{}))
		return
	}
	for _, i := range victims {
		if i.App != victims[0].App {
			s.Fail(w, r, fault.New(fault.Invalid, "scale works for the tasks of one app at a time in this version; got %s and %s", victims[0].App, i.App))
			return
		}
	}
	s.scaleAway(w, r, victims[0].App, victims)
}
