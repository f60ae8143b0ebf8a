package scheduler

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// versionFormat is Marathon's form of a version.
const versionFormat = "2006-01-02T15:04:05.000Z"

// command carries out an order of a person or program.
func (w *work) command(e Event) *Reply {
	if err := w.holds(e); err != nil {
		return refuse(err)
	}
	if err := w.crowded(e); err != nil {
		return refuse(err)
	}
	switch e := e.(type) {
	case PutApp:
		return w.putApps(e)
	case ScaleApp:
		return w.scaleApp(e)
	case RestartApp:
		return w.restartApp(e)
	case RemoveApp:
		return w.removeApp(e)
	case PutGroup:
		return w.putGroup(e)
	case PauseDeployment:
		return w.pauseDeployment(e)
	case PauseInstance:
		return w.pauseInstance(e)
	case ReplaceInstance:
		return w.replaceInstance(e)
	case YieldPrimary:
		return w.yieldPrimary(e)
	case RestartInstance:
		if e.Wipe {
			return w.wipeInstance(e.Instance, false)
		}
		return w.restartInstance(e.Instance, false)
	case ReleaseReservation:
		return w.releaseReservation(e)
	case MoveInstance:
		return w.restartInstance(e.Instance, true)
	case RemoveVolume:
		return w.removeVolume(e.Volume, e.Now)
	case CancelDeployment:
		return w.cancelDeployment(e)
	case AdoptVolume:
		return w.adoptVolume(e)
	case PutClass:
		return w.putClass(e)
	case RemoveClass:
		return w.removeClass(e)
	case StartOperation:
		return w.startOperation(e)
	case CancelOperation:
		return w.cancelOperation(e)
	case ResetDelay:
		return w.resetDelay(e.App)
	case Teardown:
		return w.teardown(e)
	case StartOver:
		return w.startOver(e)
	case OrderNode:
		return w.orderNode(e)
	case ForgetNode:
		return w.forgetNode(e)
	case Freeze:
		return w.freeze(e)
	case Thaw:
		return w.thaw()
	}
	return refuse(fault.New(fault.Internal, "event %T is not known", e))
}

func refuse(err error) *Reply { return &Reply{Err: err} }

// existing gives an app that is there and is not being removed.
func (w *work) existing(id state.AppID) (*state.App, error) {
	a := w.app(id)
	if a == nil {
		return nil, fault.New(fault.NotFound, "App '%s' does not exist", id)
	}
	return a, nil
}

// locked refuses a change of apps that a deployment holds, naming the deployments.
func (w *work) locked(apps []state.AppID, force bool) error {
	if force {
		return nil
	}
	var ids []string
	var names []string
	for _, id := range apps {
		if a := w.app(id); a != nil && a.Deployment != "" && w.deployment(a.Deployment) != nil {
			names = append(names, string(id))
			if !slices.Contains(ids, string(a.Deployment)) {
				ids = append(ids, string(a.Deployment))
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return fault.WithDetails(fault.Conflict, fmt.Sprintf("App %s is locked by one or more deployments: %s. Override with force=true", strings.Join(names, ", "), strings.Join(ids, ", ")),
		fault.Detail{Path: "/deployments", Errors: ids})
}

// from is the beginning of an app's change: what it is.
func from(a *state.App) state.AppChange {
	return state.AppChange{App: a.ID, FromVersion: a.Version, FromInstances: a.Instances, FromBase: a.Base, FromSkip: a.Skip}
}

// deploy records a deployment of changes that are being made to apps, and gives its reply. edited are the apps' new records. Nothing
// to do makes no record: the deployment is over before it began.
func (w *work) deploy(changes []state.AppChange, edited []*state.App, version string) *Reply {
	id := state.DeploymentID(w.uuid())
	levels, ok := rollout.Levels(w.needs(edited))
	if !ok {
		return refuse(fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/", Errors: []string{"Dependency graph has cyclic dependencies."}}))
	}
	d := &state.Deployment{ID: id, Version: version, CreatedAt: w.now, Changes: changes, Steps: rollout.Ordered(changes, levels), Rev: 1}
	for _, a := range edited {
		w.release(a.Deployment)
		d.Apps = append(d.Apps, a.ID)
		a.Deployment = ""
		if len(d.Steps) > 0 {
			a.Deployment = id
		}
	}
	for _, a := range edited {
		a.Alike = w.alike(a)
		w.putApp(a)
		w.apps.add(a.ID)
	}
	if len(d.Steps) > 0 {
		w.put(state.KindDeployment, string(id), d)
	}
	return &Reply{Deployment: id, Version: version, Steps: d.Steps}
}

// release abandons a deployment that another one replaces.
func (w *work) release(id state.DeploymentID) {
	d := w.deployment(id)
	if d == nil {
		return
	}
	w.endDeployment(d)
}

// checkPuts refuses definitions that cannot be, by themselves or beside what there is.
func (w *work) checkPuts(puts []AppPut, create, force bool) error {
	var ids []state.AppID
	given := map[state.AppID]bool{}
	for _, p := range puts {
		if p.Def == nil || p.Def.App == "" || p.Def.Version == "" {
			return fault.New(fault.Internal, "put app: the definition is not whole")
		}
		if given[p.Def.App] {
			return fault.New(fault.Invalid, "app %s is given twice", p.Def.App)
		}
		given[p.Def.App] = true
		ids = append(ids, p.Def.App)
		if err := checkInstances(p.Instances); err != nil {
			return err
		}
		if err := withinBounds(p.Instances, p.Def.Spec.Rollout); err != nil {
			return err
		}
		if create && w.app(p.Def.App) != nil {
			return fault.New(fault.Exists, "An app with id [%s] already exists.", p.Def.App)
		}
	}
	safe := w.safeIDs(ids)
	for _, id := range ids {
		if other := safe[id.Safe()]; other != id && w.app(id) == nil {
			return fault.WithDetails(fault.Conflict, fmt.Sprintf("app %s would have the instance ids of app %s", id, other), fault.Detail{Path: "/id", Errors: []string{"clashes with app " + string(other)}})
		}
	}
	if err := w.locked(ids, force); err != nil {
		return err
	}
	for _, p := range puts {
		if err := w.clash(p, puts); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) putApps(e PutApp) *Reply {
	if err := w.checkPuts(e.Changes, e.Create, e.Force || e.Dry); err != nil {
		return refuse(err)
	}
	var changes []state.AppChange
	var edited []*state.App
	version := w.now.UTC().Format(versionFormat)
	for _, p := range e.Changes {
		a, c := w.change(p)
		changes, edited = append(changes, c), append(edited, a)
		if len(e.Changes) == 1 {
			version = a.Version
		}
	}
	if err := w.groupNames(edited, nil); err != nil {
		return refuse(err)
	}
	r := w.deploy(changes, edited, version)
	if e.Dry && r.Err == nil {
		r.Dry, r.Deployment = true, "" // there is no such deployment
	}
	return r
}

// maxInstances is what this design plans for, over all apps.
const maxInstances = 100_000

func checkInstances(n int) error {
	if n >= 0 && n <= maxInstances {
		return nil
	}
	return fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/instances", Errors: []string{fmt.Sprintf("must be 0 to %d", maxInstances)}})
}

// safeIDs gives, for each form of an id that is part of instance ids, the app that has it: one that is there before one that is given.
func (w *work) safeIDs(given []state.AppID) map[string]state.AppID {
	safe := make(map[string]state.AppID, len(w.s.Apps)+len(given))
	for _, id := range given {
		if _, taken := safe[id.Safe()]; !taken {
			safe[id.Safe()] = id
		}
	}
	for id := range w.s.Apps {
		safe[id.Safe()] = id
	}
	return safe
}

// change makes the new record of one app. A definition that says what the old one said is no new version.
func (w *work) change(p AppPut) (*state.App, state.AppChange) {
	old := w.app(p.Def.App)
	c := state.AppChange{App: p.Def.App, ToVersion: p.Def.Version, ToInstances: p.Instances}
	a := &state.App{ID: p.Def.App, Version: p.Def.Version, First: p.Def.Version, Instances: p.Instances, LastScalingAt: w.now, LastConfigChangeAt: w.now}
	if old != nil {
		a = w.editApp(old.ID)
		c.FromVersion, c.FromInstances, c.FromBase, c.FromSkip = old.Version, old.Instances, old.Base, old.Skip
		a.Removed, a.Dispose, a.Wipe, a.Instances = false, false, false, p.Instances
		a.Skip = rollout.Reskip(old.Skip, old.Instances, p.Instances)
		if d := w.def(old.ID, old.Version); d != nil && sameDef(d, p.Def) {
			c.ToVersion = old.Version
			if old.Instances != p.Instances {
				a.LastScalingAt = w.now
			}
			return a, c
		}
		a.Version, a.LastConfigChangeAt = p.Def.Version, w.now
		if old.Instances != p.Instances {
			a.LastScalingAt = w.now
		}
	}
	w.put(state.KindDef, state.DefID(p.Def.App, p.Def.Version), p.Def)
	w.rebase(a, old)
	if old != nil {
		if d := w.def(old.ID, old.Version); d != nil {
			c.Light = runsAlike(&d.Spec, &p.Def.Spec)
			c.Repartition = c.Light && (a.Base != "" || old.Base != "") && (a.Base != old.Base || d.Spec.Rollout.Partition != p.Def.Spec.Rollout.Partition)
		}
		w.forgetDefs(p.Def.App, old.Version, a.Base)
	}
	return a, c
}

// KeptDefs is how many versions of an app's definition are kept, unless Config.MaxVersions says otherwise; as Marathon does.
const KeptDefs = 50

// forgetDefs takes the oldest definitions away that nothing uses: not the app before and after this change, no run, no instance.
func (w *work) forgetDefs(app state.AppID, keep ...string) {
	spare := len(w.s.Defs[app]) + 1 - cmp.Or(w.env.Config.MaxVersions, KeptDefs)
	if spare <= 0 {
		return
	}
	used := map[string]bool{}
	for _, v := range keep {
		used[v] = true
	}
	for _, i := range w.instancesOf(app) {
		used[i.Version] = true
		if i.Run != nil {
			used[i.Run.Version] = true
		}
	}
	for _, v := range sortedKeys(w.s.Defs[app]) {
		if spare > 0 && !used[v] {
			w.remove(state.KindDef, state.DefID(app, v))
			spare--
		}
	}
}

func sameDef(a, b *state.Def) bool {
	return bytes.Equal(a.Source, b.Source) && reflect.DeepEqual(a.Spec, b.Spec)
}

// clash refuses an app that could name a volume of another app, or the same volume twice. An app owns its whole pattern.
func (w *work) clash(p AppPut, all []AppPut) error {
	mounts := externals(&p.Def.Spec)
	no := func(format string, args ...any) error {
		text := fmt.Sprintf(format, args...)
		return fault.WithDetails(fault.Conflict, text, fault.Detail{Path: "/container/volumes", Errors: []string{text}})
	}
	for n, m := range mounts {
		for _, other := range mounts[:n] {
			if m.Driver == other.Driver && volume.PatternsClash(m.Pattern, other.Pattern) {
				return no("app %s names volume %q of driver %s twice", p.Def.App, m.Pattern, m.Driver)
			}
		}
	}
	against := func(id state.AppID, spec *state.Spec) error {
		for _, m := range mounts {
			for _, other := range externals(spec) {
				if m.Driver == other.Driver && !(m.Shared && other.Shared) && volume.PatternsClash(m.Pattern, other.Pattern) {
					return no("volume %q of driver %s in app %s could be the same as volume %q of app %s", m.Pattern, m.Driver, p.Def.App, other.Pattern, id)
				}
			}
		}
		return nil
	}
	if len(mounts) == 0 {
		return nil
	}
	given := map[state.AppID]bool{}
	for _, q := range all {
		given[q.Def.App] = true
		if q.Def.App != p.Def.App {
			if err := against(q.Def.App, &q.Def.Spec); err != nil {
				return err
			}
		}
	}
	for _, id := range sortedKeys(w.s.Apps) {
		if given[id] {
			continue
		}
		if err := against(id, w.spec(id, w.s.Apps[id].Version)); err != nil {
			return err
		}
	}
	return w.owned(p.Def.App, mounts, p.Instances, no)
}

// owned refuses names whose volumes are recorded for another app, one that was removed and left them.
func (w *work) owned(app state.AppID, mounts []*state.Mount, instances int, no func(string, ...any) error) error {
	for _, m := range mounts {
		for ordinal := range instances {
			ref := refOf(m, ordinal)
			v := w.volumeByRef(ref)
			if v != nil && v.App != app && v.App != "" && !m.Shared {
				return no("volume %s belongs to app %s, which left it (uid %s); remove it or choose another name", ref, v.App, v.UID)
			}
			if v != nil && v.Shared != m.Shared {
				return no("volume %s exists and is %s; a volume does not change that: choose another name", ref, sharing(v))
			}
			if m.Shared {
				break
			}
		}
	}
	return nil
}

func sharing(v *state.Volume) string {
	if v.Shared {
		return "shared"
	}
	return "not shared"
}

func externals(s *state.Spec) (list []*state.Mount) {
	for n := range s.Volumes {
		if s.Volumes[n].Kind == state.MountExternal {
			list = append(list, &s.Volumes[n])
		}
	}
	return list
}

func (w *work) scaleApp(e ScaleApp) *Reply {
	a, err := w.existing(e.App)
	if err != nil {
		return refuse(err)
	}
	var skip []int
	if len(e.Kill) > 0 {
		if skip, e.Instances, err = w.named(a, e.Kill); err != nil {
			return refuse(err)
		}
	}
	if err := checkInstances(e.Instances); err != nil {
		return refuse(err)
	}
	if err := w.locked([]state.AppID{e.App}, e.Force); err != nil {
		return refuse(err)
	}
	if a.Removed {
		return refuse(fault.New(fault.Conflict, "app %s is being removed", e.App))
	}
	if d := w.def(a.ID, a.Version); d != nil {
		no := func(format string, args ...any) error { return fault.New(fault.Conflict, format, args...) }
		if err := w.owned(a.ID, externals(&d.Spec), e.Instances, no); err != nil {
			return refuse(err)
		}
	}
	if err := withinBounds(e.Instances, w.spec(a.ID, a.Version).Rollout); err != nil {
		return refuse(err)
	}
	c := from(a)
	c.ToVersion, c.ToInstances = a.Version, e.Instances
	n := w.editApp(a.ID)
	n.Skip = rollout.Reskip(slices.Concat(a.Skip, skip), a.Instances, e.Instances)
	if n.Instances != e.Instances {
		n.Instances, n.LastScalingAt = e.Instances, w.now
	}
	return w.deploy([]state.AppChange{c}, []*state.App{n}, a.Version)
}

// named gives the numbers of the instances that are to go by name when an app is scaled down, and how many are left then.
func (w *work) named(a *state.App, ids []state.InstanceID) (skip []int, left int, err error) {
	left = a.Instances
	for _, id := range ids {
		i := w.instance(id)
		if i == nil || i.App != a.ID {
			return nil, 0, fault.New(fault.NotFound, "instance %s of app %s does not exist", id, a.ID)
		}
		if i.Goal == state.GoalStop || slices.Contains(skip, i.Ordinal) {
			continue
		}
		skip = append(skip, i.Ordinal)
		left--
	}
	return skip, max(0, left), nil
}

// withinBounds refuses a number of instances below minInstances or above maxInstances.
func withinBounds(n int, r state.Rollout) error {
	text := ""
	switch {
	case n < r.Min:
		text = fmt.Sprintf("got %d, expected %d or more (minInstances)", n, r.Min)
	case r.Max > 0 && n > r.Max:
		text = fmt.Sprintf("got %d, expected %d or less (maxInstances)", n, r.Max)
	default:
		return nil
	}
	return fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/instances", Errors: []string{text}})
}

func (w *work) restartApp(e RestartApp) *Reply {
	a, err := w.existing(e.App)
	if err != nil {
		return refuse(err)
	}
	if err := w.locked([]state.AppID{e.App}, e.Force); err != nil {
		return refuse(err)
	}
	if a.Removed {
		return refuse(fault.New(fault.Conflict, "app %s is being removed", e.App))
	}
	n := w.editApp(a.ID)
	n.Restart++
	c := from(a)
	c.ToVersion, c.ToInstances, c.ToRestart = a.Version, a.Instances, n.Restart
	return w.deploy([]state.AppChange{c}, []*state.App{n}, a.Version)
}

func (w *work) removeApp(e RemoveApp) *Reply {
	a, err := w.existing(e.App)
	if err != nil {
		return refuse(err)
	}
	if err := w.locked([]state.AppID{e.App}, e.Force); err != nil {
		return refuse(err)
	}
	n := w.editApp(a.ID)
	n.Removed, n.Dispose, n.Wipe = true, true, n.Wipe || e.Wipe
	r := w.deploy([]state.AppChange{from(a)}, []*state.App{n}, a.Version)
	if n.Wipe {
		for _, v := range w.s.VolumesOf(a.ID) {
			r.Volumes = append(r.Volumes, v.UID)
		}
	}
	return r
}

func (w *work) restartInstance(id state.InstanceID, move bool) *Reply {
	i := w.instance(id)
	if i == nil {
		return refuse(fault.New(fault.NotFound, "instance %s does not exist", id))
	}
	if i.Goal == state.GoalStop {
		return refuse(fault.New(fault.Conflict, "instance %s is being stopped", id))
	}
	if move && i.Run == nil {
		return refuse(fault.New(fault.Conflict, "instance %s is on no agent", id))
	}
	if r := w.bound(i); move && r != nil && r.HasVolume() && !r.Wipe {
		return refuse(fault.New(fault.Conflict, "instance %s cannot move: its local volume is on agent %s only", id, r.Hostname))
	}
	if move {
		for _, v := range w.volumesFor(i) {
			if v != nil && v.Scope == "node" && v.Node != "" {
				return refuse(fault.New(fault.Conflict, "instance %s cannot move: its volume %s is on node %s only", id, v.Ref, w.nodeName(v.Node)))
			}
		}
	}
	if i.Phase == state.PhaseGranting {
		agent := i.Run.Agent
		w.cancelGranting(i, 0)
		c := w.edit(w.instance(id))
		if move {
			c.Avoid = []state.AgentID{agent}
		}
		w.putInstance(c)
		return &Reply{Version: i.Version}
	}
	c := w.edit(i)
	c.Failures, c.BackoffUntil, c.Avoid = 0, time.Time{}, nil
	disown(c, "its instance was restarted while it was out of reach")
	if move {
		c.Avoid = []state.AgentID{i.Run.Agent}
	}
	switch i.Phase {
	case state.PhaseLaunching, state.PhaseStaging, state.PhaseRunning:
		reason := "a restart was asked for"
		if move {
			reason = "it was asked to move to another agent"
		}
		w.kill(c, reason)
	case state.PhaseLost:
		w.putInstance(c)
		if len(c.Run.Claims) == 0 { // a person says that it is not to be waited for
			w.endRun(c)
		}
	default:
		w.putInstance(c)
		w.instances.add(id)
	}
	return &Reply{Version: i.Version}
}

func (w *work) removeVolume(uid state.VolumeUID, now bool) *Reply {
	v := w.volume(uid)
	if v == nil {
		return refuse(fault.New(fault.NotFound, "volume %s does not exist", uid))
	}
	if user := w.userOf(v); user != "" {
		return refuse(fault.New(fault.Conflict, "volume %s is used by instance %s, which is to run", v.Ref, user))
	}
	if v.MadeBy != "" {
		return refuse(fault.New(fault.Conflict, "volume %s is being made by operation %s: cancel that first", v.Ref, v.MadeBy))
	}
	switch {
	case v.Phase != state.VolumeRemoving:
		if now {
			c := *v
			c.RemoveNow, v = true, &c
		}
		w.beginRemove(v)
	case now && !v.RemoveNow:
		return refuse(fault.New(fault.Conflict, "volume %s is being removed already, into its driver's bin if it has one: purge it there once it is removed", v.Ref))
	}
	return &Reply{Volumes: []state.VolumeUID{uid}}
}

// userOf names an instance that is wanted, or still there, and uses the volume.
func (w *work) userOf(v *state.Volume) state.InstanceID {
	if !v.Shared {
		i := w.instance(v.Instance)
		if i == nil {
			return ""
		}
		if i.Run != nil || slices.ContainsFunc(w.volumesFor(i), func(x *state.Volume) bool { return x != nil && x.UID == v.UID }) {
			return i.ID
		}
		return ""
	}
	for _, app := range w.sharers(v) {
		if list := w.s.InstancesOf(app); len(list) > 0 {
			return list[0].ID
		}
	}
	return ""
}

// cancelDeployment takes a deployment's changes back by a deployment the other way round, or with Force just forgets it.
func (w *work) cancelDeployment(e CancelDeployment) *Reply {
	d := w.deployment(e.Deployment)
	if d == nil {
		return refuse(fault.New(fault.NotFound, "DeploymentPlan %s does not exist", e.Deployment))
	}
	if e.Force {
		w.release(d.ID)
		return &Reply{Deployment: d.ID, Version: d.Version}
	}
	var changes []state.AppChange
	var edited []*state.App
	for _, c := range d.Changes {
		a := w.app(c.App)
		if a == nil {
			continue // removed already, with its definitions
		}
		n := w.editApp(c.App)
		back := from(n)
		back.ToVersion, back.ToInstances = c.FromVersion, c.FromInstances
		switch {
		case c.FromVersion == "":
			n.Removed = true
		case c.ToVersion == "":
			n.Removed, n.Dispose, n.Wipe = false, false, false
			n.Version, n.Instances, n.Base, n.Skip = c.FromVersion, c.FromInstances, c.FromBase, c.FromSkip
		default:
			if n.Version != c.FromVersion {
				n.LastConfigChangeAt = w.now
			}
			n.Version, n.Instances, n.Base, n.Skip = c.FromVersion, c.FromInstances, c.FromBase, c.FromSkip
			back.Light, back.Repartition = c.Light, c.Repartition
		}
		if back.FromVersion == back.ToVersion && back.FromInstances == back.ToInstances {
			back.ToInstances = c.FromInstances
			// Those that are being stopped are as good as gone, and must be waited for again.
			if st := w.statsOf(c.App); st.Total-st.Stopping != n.Instances {
				back.FromInstances = st.Total - st.Stopping
			}
		}
		changes, edited = append(changes, back), append(edited, n)
	}
	return w.deploy(changes, edited, d.Version)
}

func (w *work) resetDelay(id state.AppID) *Reply {
	a, err := w.existing(id)
	if err != nil {
		return refuse(err)
	}
	for _, i := range w.instancesOf(id) {
		if i.Failures == 0 && i.BackoffUntil.IsZero() {
			continue
		}
		c := w.edit(i)
		c.Failures, c.BackoffUntil = 0, time.Time{}
		w.putInstance(c)
		w.instances.add(c.ID)
	}
	return &Reply{Version: a.Version}
}
