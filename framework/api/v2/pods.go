package v2

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/event"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/pod"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func (s *api) podRoutes(t *desk.Table) {
	get, post, put, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	t.Handle(get, "/v2/pods", "lists pods", s.listPods)
	t.Handle(post, "/v2/pods", "creates a pod", s.createPod, "force")
	t.Handle(get, "/v2/pods::status", "tells how all pods do", s.podStatuses)
	t.Handle(get, "/v2/pods/::status", "tells how all pods do", s.podStatuses)
	t.Handle(get, "/v2/pods/{id:.+}::status", "tells how a pod does", s.podStatus)
	t.Handle(get, "/v2/pods/{id:.+}::versions/{version}", "gives one version of a pod", s.podVersion)
	t.Handle(get, "/v2/pods/{id:.+}::versions", "lists a pod's versions", s.podVersions)
	t.Handle(del, "/v2/pods/{id:.+}::instances/{instance}", "kills an instance of a pod", s.killPodInstance, "wipe")
	t.Handle(del, "/v2/pods/{id:.+}::instances", "kills instances of a pod", s.killPodInstances, "wipe")
	t.Handle(get, "/v2/pods/{id:[^:]+}", "gives a pod", s.showPod)
	t.Handle(put, "/v2/pods/{id:[^:]+}", "creates or updates a pod", s.putPod, "force")
	t.Handle(del, "/v2/pods/{id:[^:]+}", "deletes a pod", s.deletePod, "force", "wipe")
}

func isPod(st *state.State, a *state.App) bool {
	d := st.Def(a.ID, a.Version)
	return d != nil && d.Spec.Pod()
}

func sameID() error {
	return fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/", Errors: []string{"Applications and Pods may not share the same id"}})
}

func noPod(id state.AppID) error { return fault.New(fault.NotFound, "Pod '%s' does not exist", id) }

// podOf takes a picture of the pod that a request is about; nil when the request is answered with 404.
func (s *api) podOf(w http.ResponseWriter, r *http.Request) (p *picture.App) {
	id := pathID(r)
	s.Core.View(func(st *state.State) {
		if a := st.Apps[id]; a != nil && !a.Removed && isPod(st, a) {
			p = picture.Of(st, a)
		}
	})
	if p == nil {
		s.Fail(w, r, noPod(id))
	}
	return p
}

func (s *api) pods() (pods []*picture.App) {
	s.Core.View(func(st *state.State) { pods = picture.Pods(st) })
	picture.Sort(pods)
	return pods
}

func (s *api) listPods(w http.ResponseWriter, r *http.Request) {
	pods := s.pods()
	out := s.Begin(w, r)
	defer out.Close()
	picture.PrintPods(out, pods)
}

func (s *api) showPod(w http.ResponseWriter, r *http.Request) {
	if p := s.podOf(w, r); p != nil {
		s.Raw(w, r, http.StatusOK, p.PrintPod())
	}
}

func (s *api) podStatus(w http.ResponseWriter, r *http.Request) {
	if p := s.podOf(w, r); p != nil {
		s.JSON(w, r, http.StatusOK, p.PodStatus(s.Now()))
	}
}

func (s *api) podStatuses(w http.ResponseWriter, r *http.Request) {
	list := []picture.PodStatus{}
	for _, p := range s.pods() {
		list = append(list, p.PodStatus(s.Now()))
	}
	s.JSON(w, r, http.StatusOK, list)
}

func (s *api) podVersions(w http.ResponseWriter, r *http.Request) {
	p := s.podOf(w, r)
	if p == nil {
		return
	}
	versions := []string{}
	s.Core.View(func(st *state.State) {
		for v := range st.Defs[p.App.ID] {
			versions = append(versions, v)
		}
	})
	slices.Sort(versions)
	slices.Reverse(versions)
	s.JSON(w, r, http.StatusOK, versions)
}

func (s *api) podVersion(w http.ResponseWriter, r *http.Request) {
	p := s.podOf(w, r)
	if p == nil {
		return
	}
	version, err := desk.ParseVersion(mux.Vars(r)["version"])
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	var d *state.Def
	s.Core.View(func(st *state.State) { d = st.Def(p.App.ID, version) })
	switch {
	case d == nil || !d.Spec.Pod():
		s.Fail(w, r, noPod(p.App.ID))
	case version == p.App.Version:
		s.Raw(w, r, http.StatusOK, p.PrintPod())
	default:
		s.Raw(w, r, http.StatusOK, picture.PrintPodVersion(d))
	}
}

func (s *api) createPod(w http.ResponseWriter, r *http.Request) { s.writePod(w, r, "") }

func (s *api) putPod(w http.ResponseWriter, r *http.Request) { s.writePod(w, r, pathID(r)) }

// writePod creates or changes a pod; id is "" for a new one.
func (s *api) writePod(w http.ResponseWriter, r *http.Request, id state.AppID) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	ctx, done, ok := s.turn(w, r)
	if !ok {
		return
	}
	defer done()
	p, warnings, err := pod.Read(v, s.rules())
	desk.Warn(w, warnings)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	if id != "" && p.ID != string(id) {
		s.BadRequest(w, r, "'%s' does not match definition's id ('%s')", id, v.Fields["id"].Text)
		return
	}
	put, isNew, err := s.podPut(p, id == "")
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	group := picture.Parent(put.Def.App)
	reply, err := s.Do(ctx, scheduler.PutApp{Changes: []scheduler.AppPut{put}, Force: desk.Yes(r, "force", false)})
	if err != nil {
		s.refused(w, r, group, err)
		return
	}
	result := s.result(w, reply)
	kind, code := event.PodUpdated, http.StatusOK
	if isNew {
		kind = event.PodCreated
	}
	if id == "" {
		code = http.StatusCreated
		w.Header().Set("Location", location(r, put.Def.App))
	}
	s.podChanged(r, kind)
	s.groupChanged(group, result.Version)
	printed, err := pod.Print(put.Def.Source, result.Version, put.Instances)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.Raw(w, r, code, printed)
}

// podPut makes the change of a pod. A definition that says what the old one says, but for the number of instances, is the old one.
func (s *api) podPut(p *pod.Pod, create bool) (put scheduler.AppPut, isNew bool, err error) {
	id := state.AppID(p.ID)
	base, old, versions := s.before(id)
	isNew = base == nil || base.Removed
	switch {
	case base != nil && !old.Spec.Pod() && base.Removed:
		return put, false, fault.New(fault.Conflict, "app %s is being deleted; a pod of that id has to wait for it", id)
	case base != nil && !old.Spec.Pod():
		return put, false, sameID()
	case !isNew && create:
		return put, false, fault.New(fault.Exists, "An app with id [%s] already exists.", id)
	}
	spec, err := p.Spec()
	if err != nil {
		return put, false, err
	}
	if p.Role != "" && p.Role != "*" && p.Role != s.Core.Info().Role {
		spec.Role = p.Role
	}
	d := &state.Def{App: id, Version: nextVersion(s.Now(), versions), Spec: spec, Source: p.JSON()}
	if len(d.Source) > maxDefinition {
		return put, false, fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/", Errors: []string{fmt.Sprintf("the definition is larger than %d KiB", maxDefinition>>10)}})
	}
	if !isNew && p.SameBut(old.Source) {
		d.Spec, d.Source = old.Spec, old.Source
	}
	return scheduler.AppPut{Def: d, Instances: p.Instances()}, isNew, nil
}

func (s *api) podChanged(r *http.Request, kind string) {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		ip = r.RemoteAddr
	}
	s.hub.Publish(event.PodChanged(kind, s.Now(), ip, r.URL.RequestURI()))
}

func (s *api) deletePod(w http.ResponseWriter, r *http.Request) {
	p := s.podOf(w, r)
	if p == nil {
		return
	}
	ctx, cancel := desk.Limited(r)
	defer cancel()
	reply, err := s.Do(ctx, scheduler.RemoveApp{App: p.App.ID, Force: desk.Yes(r, "force", false), Wipe: desk.Yes(r, "wipe", false)})
	if err != nil {
		s.refused(w, r, picture.Parent(p.App.ID), err)
		return
	}
	result := s.result(w, reply)
	s.podChanged(r, event.PodDeleted)
	s.groupChanged(picture.Parent(p.App.ID), result.Version)
	w.WriteHeader(http.StatusAccepted)
}

func (s *api) killPodInstance(w http.ResponseWriter, r *http.Request) {
	id := mux.Vars(r)["instance"]
	s.killPods(w, r, []string{id}, func(list []picture.PodInstanceStatus) {
		if len(list) == 0 {
			s.Fail(w, r, fault.New(fault.NotFound, "Task '%s' does not exist", id))
			return
		}
		s.JSON(w, r, http.StatusOK, list[0])
	})
}

func (s *api) killPodInstances(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	var ids []string
	bad := v.Kind != document.Array
	for _, item := range v.List {
		bad = bad || item.Kind != document.String
		ids = append(ids, item.Text)
	}
	if bad {
		s.Fail(w, r, fault.WithDetails(fault.Invalid, "Invalid JSON", fault.Detail{Path: "/", Errors: []string{"error.expected.jsarray"}}))
		return
	}
	s.killPods(w, r, ids, func(list []picture.PodInstanceStatus) { s.JSON(w, r, http.StatusOK, list) })
}

// killPods ends the runs of instances; each runs again, with its number and volumes.
func (s *api) killPods(w http.ResponseWriter, r *http.Request, ids []string, answer func([]picture.PodInstanceStatus)) {
	p := s.podOf(w, r)
	if p == nil {
		return
	}
	list, victims := []picture.PodInstanceStatus{}, []*state.Instance(nil)
	for _, i := range p.Instances {
		if !picture.HasTask(i) || !slices.ContainsFunc(ids, func(id string) bool {
			return id == string(i.ID) || id == string(i.Run.Task) || strings.HasPrefix(id, string(i.Run.Task)+".")
		}) {
			continue
		}
		victims = append(victims, i)
		list = append(list, p.InstanceStatus(i, s.Now()))
	}
	if err := s.restartEach(r.Context(), victims, desk.Yes(r, "wipe", false)); err != nil {
		s.Fail(w, r, err)
		return
	}
	answer(list)
}

// podsOf notes which apps of a deployment are pods.
func podsOf(st *state.State, d *state.Deployment, pods map[state.AppID]bool) {
	for _, id := range d.Apps {
		if a := st.Apps[id]; a != nil && isPod(st, a) {
			pods[id] = true
		}
	}
}

// tellPods calls pods and what is done with them by their names.
func (d *deployment) tellPods(pods map[state.AppID]bool) {
	apps := d.AffectedApps
	d.AffectedApps = []state.AppID{}
	for _, id := range apps {
		if pods[id] {
			d.AffectedPods = append(d.AffectedPods, id)
		} else {
			d.AffectedApps = append(d.AffectedApps, id)
		}
	}
	name := func(action string) string { return strings.TrimSuffix(action, "Application") + "Pod" }
	for i := range d.Steps {
		for j := range d.Steps[i].Actions {
			if a := &d.Steps[i].Actions[j]; pods[a.App] {
				a.Action, a.App, a.Pod = name(a.Action), "", a.App
			}
		}
	}
	for i := range d.CurrentActions {
		if a := &d.CurrentActions[i]; pods[a.App] {
			a.Action, a.App, a.Pod = name(a.Action), "", a.App
		}
	}
}
