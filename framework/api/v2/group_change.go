package v2

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// maxGroupApps bounds the apps that one request may change: their deployment is one record. A dry run writes none.
const maxGroupApps = 2000

func (s *api) createGroup(w http.ResponseWriter, r *http.Request) {
	s.changeGroup(w, r, true)
}

func (s *api) putGroup(w http.ResponseWriter, r *http.Request) {
	s.changeGroup(w, r, false)
}

// changeGroup creates or updates a group and everything in it in one deployment.
func (s *api) changeGroup(w http.ResponseWriter, r *http.Request, create bool) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	u, warnings, err := marathon.ReadGroup(v, string(groupID(r)), s.rules())
	desk.Warn(w, warnings)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	ctx, done, ok := s.turn(w, r)
	if !ok {
		return
	}
	defer done()
	e, warnings, err := s.planGroup(u, create)
	desk.Warn(w, warnings)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	e.Force, e.Dry = desk.Yes(r, "force", false), !create && desk.Yes(r, "dryRun", false)
	if n := len(e.Changes) + len(e.Remove); n > maxGroupApps && !e.Dry {
		s.Fail(w, r, fault.New(fault.Invalid, "at most %d apps may be changed by one request, not %d", maxGroupApps, n))
		return
	}
	s.sendGroup(ctx, w, r, state.AppID(u.ID), e, create)
}

// sendGroup hands over the change of a group, and answers.
func (s *api) sendGroup(ctx context.Context, w http.ResponseWriter, r *http.Request, group state.AppID, e *scheduler.PutGroup, created bool) {
	reply, err := s.Do(ctx, *e)
	if err != nil {
		s.refused(w, r, group, err)
		return
	}
	if e.Dry {
		s.planned(w, r, reply, e.Changes, e.Remove)
		return
	}
	result := s.result(w, reply)
	s.groupChanged(group, result.Version)
	if !created {
		s.JSON(w, r, http.StatusOK, result)
		return
	}
	w.Header().Set("Location", location(r, group))
	s.JSON(w, r, http.StatusCreated, result)
}

// groupPlan is the change of a group in the making.
type groupPlan struct {
	now     *picture.Tree
	version string
	event   scheduler.PutGroup
	apps    []marathon.GroupApp
}

// planGroup makes the command of what is said of a group.
func (s *api) planGroup(u *marathon.Group, create bool) (e *scheduler.PutGroup, warnings []string, err error) {
	id := state.AppID(u.ID)
	p := &groupPlan{version: desk.Stamp(s.Now())}
	var clash bool
	s.Core.View(func(st *state.State) {
		p.now = picture.TreeOf(st, id)
		clash = appOf(st, id) != nil
	})
	switch {
	case create && clash:
		return nil, nil, fault.New(fault.Exists, "An app with the path %s already exists.", id)
	case create && p.now.There:
		return nil, nil, fault.New(fault.Exists, "Group %s is already created. Use PUT to change this group.", id)
	case u.Version != nil:
		return s.rollback(p, *u.Version)
	case u.ScaleBy != nil && !p.now.There:
		return nil, nil, noGroup(id)
	case u.ScaleBy != nil:
		return p.scale(*u.ScaleBy)
	}
	p.walk(u)
	ports := s.servicePorts()
	for _, a := range p.apps {
		c, err := s.prepare(how{read: a.App}, state.AppID(a.ID), a.Value, ports)
		if err != nil {
			return nil, warnings, desk.Under(err, a.At)
		}
		p.event.Changes = append(p.event.Changes, c.put)
	}
	return &p.event, warnings, nil
}

// rollback returns to a version of a group: its apps get the definitions they had then, those that came later go (their volumes stay).
func (s *api) rollback(p *groupPlan, text string) (*scheduler.PutGroup, []string, error) {
	version, err := desk.ParseVersion(text)
	if err != nil {
		return nil, nil, err
	}
	then, ok := (*picture.Tree)(nil), false
	taken, current := map[string]bool{}, map[state.AppID]string{}
	s.Core.View(func(st *state.State) {
		then, ok = p.now.At(st, version)
		for _, a := range p.now.All() {
			current[a.App.ID] = a.App.Version
			for v := range st.Defs[a.App.ID] {
				taken[v] = true
			}
		}
	})
	if !p.now.There || !ok {
		return nil, nil, fault.New(fault.Invalid, "Group %s not available in version %s", p.now.Root, version)
	}
	next := nextVersion(s.Now(), taken)
	kept := map[state.AppID]bool{}
	for _, a := range then.All() {
		kept[a.App.ID] = true
		d := *a.Def
		if d.Version != current[d.App] {
			d.Version = next
		}
		p.event.Changes = append(p.event.Changes, scheduler.AppPut{Def: &d, Instances: a.App.Instances})
	}
	for _, a := range p.now.All() {
		if !kept[a.App.ID] {
			p.event.Remove = append(p.event.Remove, a.App.ID)
		}
	}
	return &p.event, nil, nil
}

// scale multiplies the instances of every app, rounded up.
func (p *groupPlan) scale(by float64) (*scheduler.PutGroup, []string, error) {
	for _, a := range p.now.All() {
		n := math.Ceil(float64(a.App.Instances)*by - 1e-9)
		if n > 1e6 {
			return nil, nil, fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/scaleBy", Errors: []string{fmt.Sprintf("app %s would have %g instances", a.App.ID, n)}})
		}
		p.event.Changes = append(p.event.Changes, scheduler.AppPut{Def: a.Def, Instances: int(n)})
	}
	return &p.event, nil, nil
}

// walk takes in what is said of one group, and of those in it.
func (p *groupPlan) walk(u *marathon.Group) {
	id := state.AppID(u.ID)
	own := &state.AppGroup{ID: id, Version: p.version, EnforceRole: u.EnforceRole}
	if old := p.now.Own[id]; old != nil {
		own.Dependencies = old.Dependencies
		if own.EnforceRole == nil {
			own.EnforceRole = old.EnforceRole
		}
	}
	if u.HasDependencies {
		own.Dependencies = nil
		for _, d := range u.Dependencies {
			own.Dependencies = append(own.Dependencies, state.AppID(d))
		}
	}
	p.event.Groups = append(p.event.Groups, own)
	given := map[state.AppID]bool{}
	for _, a := range u.Apps {
		given[state.AppID(a.ID)] = true
		p.apps = append(p.apps, a)
	}
	for _, a := range p.now.Apps[id] {
		if u.HasApps && !given[a.App.ID] {
			p.event.Remove = append(p.event.Remove, a.App.ID)
		}
	}
	for _, sub := range u.Groups {
		given[state.AppID(sub.ID)] = true
		p.walk(sub)
	}
	for _, sub := range p.now.Groups[id] {
		if u.HasGroups && !given[sub] {
			p.drop(sub)
		}
	}
}

// drop takes a group away with all that is in it.
func (p *groupPlan) drop(group state.AppID) {
	for _, a := range p.now.Apps[group] {
		p.event.Remove = append(p.event.Remove, a.App.ID)
	}
	for _, a := range p.now.Pods[group] {
		p.event.Remove = append(p.event.Remove, a.App.ID)
	}
	if p.now.Own[group] != nil {
		p.event.RemoveGroups = append(p.event.RemoveGroups, group)
	}
	for _, sub := range p.now.Groups[group] {
		p.drop(sub)
	}
}

func (s *api) deleteGroup(w http.ResponseWriter, r *http.Request) {
	ctx, done, ok := s.turn(w, r)
	if !ok {
		return
	}
	defer done()
	t, ok := s.lookGroup(w, r)
	if !ok {
		return
	}
	p := &groupPlan{now: t}
	p.drop(t.Root)
	p.event.Force, p.event.Wipe = desk.Yes(r, "force", false), desk.Yes(r, "wipe", false)
	s.sendGroup(ctx, w, r, t.Root, &p.event, false)
}

// patchGroup changes enforceRole, which is kept and printed only.
func (s *api) patchGroup(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	run := &document.Run{}
	in := run.Read(v)
	enforce := in.Flag("enforceRole")
	in.Close()
	desk.Warn(w, run.Warnings)
	if err := run.Problems.Err("Invalid JSON"); err != nil {
		s.Fail(w, r, err)
		return
	}
	ctx, done, ok := s.turn(w, r)
	if !ok {
		return
	}
	defer done()
	t, ok := s.lookGroup(w, r)
	if !ok {
		return
	}
	if t.Root == "/" || strings.Count(string(t.Root), "/") != 1 {
		s.Fail(w, r, fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/", Errors: []string{"Path needs to be top-level"}}))
		return
	}
	own := &state.AppGroup{ID: t.Root, Version: desk.Stamp(s.Now()), EnforceRole: enforce}
	if old := t.Own[t.Root]; old != nil {
		own.Dependencies = old.Dependencies
	}
	if _, err := s.Do(ctx, scheduler.PutGroup{Groups: []*state.AppGroup{own}}); err != nil {
		s.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}
