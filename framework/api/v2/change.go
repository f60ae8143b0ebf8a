package v2

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// how says what a body means for the app it names.
type how struct {
	create  bool          // POST: the app must be new
	partial bool          // the fields given replace those of the app
	mustBe  bool          // PATCH: the app must exist
	read    *marathon.App // the body as it was read already, nil when it was not
}

// maxDefinition bounds one app as stored, in bytes: a batch of the store takes 400 KB.
const maxDefinition = 256 << 10

// deploymentResult is the answer to most commands.
type deploymentResult struct {
	Version      string `json:"version"`
	DeploymentID string `json:"deploymentId"`
}

// change is one app's part of a command, ready to be sent.
type change struct {
	put      scheduler.AppPut
	app      *marathon.App
	isNew    bool
	revives  bool // the app is being removed: a deployment is in the way, not an app
	warnings []string
}

func (s *api) createApp(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.write(w, r, how{create: true}, "", v)
}

func (s *api) putApp(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	patch := r.Method == http.MethodPatch
	s.write(w, r, how{partial: patch || desk.Yes(r, "partialUpdate", true), mustBe: patch}, pathID(r), v)
}

// write changes one app: reads what there is, checks what is wanted, hands over the command, answers.
func (s *api) write(w http.ResponseWriter, r *http.Request, h how, id state.AppID, v *document.Value) {
	ctx, done, ok := s.turn(w, r)
	if !ok {
		return
	}
	defer done()
	c, err := s.prepare(h, id, v, s.servicePorts())
	if c != nil {
		desk.Warn(w, c.warnings)
	}
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	dry := desk.Yes(r, "dryRun", false)
	reply, err := s.Do(ctx, scheduler.PutApp{Changes: []scheduler.AppPut{c.put}, Force: desk.Yes(r, "force", false), Create: h.create && !c.revives, Dry: dry})
	switch {
	case err != nil:
		s.refused(w, r, picture.Parent(c.put.Def.App), err)
		return
	case dry:
		s.planned(w, r, reply, []scheduler.AppPut{c.put}, nil)
		return
	}
	s.written(w, r, h, c, reply)
}

func (s *api) written(w http.ResponseWriter, r *http.Request, h how, c *change, reply scheduler.Reply) {
	id := c.put.Def.App
	result := s.result(w, reply)
	s.posted(r, c, result.Version)
	if !c.isNew {
		s.JSON(w, r, http.StatusOK, result)
		return
	}
	w.Header().Set("Location", location(r, id))
	if !h.create {
		s.JSON(w, r, http.StatusCreated, result)
		return
	}
	extra := append(picture.Members(picture.Counts{}), ',')
	extra = append(extra, picture.Members(map[string]any{"deployments": []desk.DeploymentRef{{ID: result.DeploymentID}}})...)
	s.Raw(w, r, http.StatusCreated, c.print(result.Version, extra))
}

// print gives the app as it was asked for.
func (c *change) print(version string, extra []byte) []byte {
	return definition.Print(c.put.Def.Source, definition.Live{Instances: c.put.Instances, Version: version, Extra: extra})
}

// location is where Marathon says that a new app is: the id resolved against the root, not against /v2/apps.
func location(r *http.Request, id state.AppID) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + string(id)
}

// result names the deployment of a reply, in header and body. What changed nothing gets a name too: clients insist on one.
func (s *api) result(w http.ResponseWriter, reply scheduler.Reply) deploymentResult {
	out := deploymentResult{Version: reply.Version, DeploymentID: string(reply.Deployment)}
	if out.Version == "" {
		out.Version = desk.Stamp(s.Now())
	}
	if out.DeploymentID == "" {
		out.DeploymentID = uuid.NewString()
	}
	w.Header().Set("Marathon-Deployment-Id", out.DeploymentID)
	return out
}

// prepare makes the change of one app from a body. id "" means that the body names it. ports are those of all apps, and of those that
// the same command changes. The change is not nil when only its warnings are of use.
func (s *api) prepare(h how, id state.AppID, v *document.Value, ports *portUse) (*change, error) {
	if v.Kind == document.Object && id != "" {
		v.Set("id", &document.Value{Kind: document.String, Text: string(id)})
	}
	c := &change{}
	if id == "" {
		if f := v.Fields["id"]; v.Kind == document.Object && f != nil && f.Kind == document.String {
			id = state.AppID(marathon.AbsoluteID(f.Text))
		}
	}
	base, baseDef, versions := s.before(id)
	if base != nil && baseDef.Spec.Pod() {
		return c, sameID()
	}
	if h.mustBe && (base == nil || base.Removed) {
		return c, noApp(id)
	}
	if base != nil && h.create && !base.Removed {
		// Say what is wrong with the body first, as Marathon does.
		if _, warnings, err := marathon.Read(v, s.rules()); err != nil {
			c.warnings = warnings
			return c, err
		}
		return c, fault.New(fault.Exists, "An app with id [%s] already exists.", id)
	}
	c.revives = base != nil && base.Removed
	c.isNew = base == nil || c.revives
	var err error
	var old *marathon.App
	if !c.isNew {
		if old, err = marathon.Stored(baseDef.Source); err != nil {
			return c, err
		}
	}
	if h.partial && !c.isNew {
		err = s.update(c, base, baseDef, v)
	} else if c.app = h.read; c.app == nil {
		c.app, c.warnings, err = marathon.Read(v, s.rules())
	}
	if err != nil {
		return c, err
	}
	return c, s.finish(c, old, baseDef, ports, nextVersion(s.Now(), versions))
}

// before reads what there is of an app: its record, its definition, all its versions.
func (s *api) before(id state.AppID) (base *state.App, def *state.Def, versions map[string]bool) {
	versions = map[string]bool{}
	s.Core.View(func(st *state.State) {
		base = st.Apps[id]
		if base != nil {
			if def = st.Def(id, base.Version); def == nil {
				base = nil
			}
		}
		for v := range st.Defs[id] {
			versions[v] = true
		}
	})
	return base, def, versions
}

// nextVersion is now, or the next millisecond that is not a version yet.
func nextVersion(now time.Time, versions map[string]bool) string {
	for versions[desk.Stamp(now)] {
		now = now.Add(time.Millisecond)
	}
	return desk.Stamp(now)
}

// update applies a partial update, or a rollback.
func (s *api) update(c *change, base *state.App, def *state.Def, v *document.Value) error {
	u, warnings, err := marathon.ReadUpdate(v)
	c.warnings = warnings
	if err != nil {
		return err
	}
	instances := base.Instances
	if version := u.Version(); version != "" {
		for _, k := range v.Keys {
			if k != "version" && k != "id" && v.Fields[k].Kind != document.Null {
				return fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/", Errors: []string{"The 'version' field may only be combined with the 'id' field."}})
			}
		}
		if version, err = desk.ParseVersion(version); err != nil {
			return err
		}
		var old *state.Def
		s.Core.View(func(st *state.State) { old = st.Def(base.ID, version) })
		if old == nil {
			return noApp(base.ID)
		}
		def, instances = old, picture.StoredInstances(old)
	}
	stored, err := marathon.Stored(def.Source)
	if err != nil {
		return err
	}
	stored.Instances = &instances
	app, more, err := u.Apply(stored, s.rules())
	c.app, c.warnings = app, append(c.warnings, more...)
	return err
}

// finish makes the definition of a checked app. One that says what the old one says, but for the number of instances, is the old one.
func (s *api) finish(c *change, old *marathon.App, oldDef *state.Def, ports *portUse, version string) error {
	a := c.app
	if err := a.Unsupported(); err != nil {
		return err
	}
	c.warnings = append(c.warnings, a.Notes()...)
	if !ports.assign(a, old) {
		return fault.New(fault.Conflict, "All ports in the range [10000-20000) are already in use")
	}
	spec, err := a.Spec()
	if err != nil {
		return err
	}
	if r := definition.Or(a.Role, "*"); r != "*" && r != s.Core.Info().Role {
		spec.Role = r
	}
	def := &state.Def{App: state.AppID(a.ID), Version: version, Spec: spec, Source: a.JSON()}
	if len(def.Source) > maxDefinition {
		return fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/", Errors: []string{fmt.Sprintf("the definition is larger than %d KiB", maxDefinition>>10)}})
	}
	if old != nil && sameBut(a, old) {
		def.Spec, def.Source = oldDef.Spec, oldDef.Source
	}
	c.put = scheduler.AppPut{Def: def, Instances: *a.Instances}
	return nil
}

// sameBut tells whether two apps differ in nothing but the number of instances.
func sameBut(a, b *marathon.App) bool {
	n := *a.Instances
	x, y := *a, *b
	x.Instances, y.Instances = &n, &n
	return string(x.JSON()) == string(y.JSON())
}

// putApps changes several apps in one deployment.
func (s *api) putApps(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	if v.Kind != document.Array {
		s.Fail(w, r, fault.WithDetails(fault.Invalid, "Invalid JSON", fault.Detail{Path: "/", Errors: []string{"error.expected.jsarray"}}))
		return
	}
	ctx, done, ok := s.turn(w, r)
	if !ok {
		return
	}
	defer done()
	patch := r.Method == http.MethodPatch
	h := how{partial: patch || desk.Yes(r, "partialUpdate", true), mustBe: patch}
	changes, warnings, err := s.prepareAll(h, v)
	desk.Warn(w, warnings)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	reply, dry := scheduler.Reply{}, desk.Yes(r, "dryRun", false)
	if len(changes) > 0 {
		if reply, err = s.Do(ctx, scheduler.PutApp{Changes: changes, Force: desk.Yes(r, "force", false), Dry: dry}); err != nil {
			s.refused(w, r, "/", err)
			return
		}
	}
	if dry {
		s.planned(w, r, reply, changes, nil)
		return
	}
	result := s.result(w, reply)
	s.groupChanged("/", result.Version)
	s.JSON(w, r, http.StatusOK, result)
}

// maxAppsAtOnce keeps one deployment within one batch of the store.
const maxAppsAtOnce = 20

func (s *api) prepareAll(h how, v *document.Value) (puts []scheduler.AppPut, warnings []string, err error) {
	if len(v.List) > maxAppsAtOnce {
		return nil, nil, fault.New(fault.Invalid, "at most %d apps may be changed by one request", maxAppsAtOnce)
	}
	ports := s.servicePorts()
	for i, item := range v.List {
		at := fmt.Sprintf("/(%d)", i)
		if item.Kind != document.Object {
			return nil, warnings, fault.WithDetails(fault.Invalid, "Invalid JSON", fault.Detail{Path: at, Errors: []string{"error.expected.jsobject"}})
		}
		if f := item.Fields["id"]; f == nil || f.Kind != document.String {
			return nil, warnings, fault.New(fault.Invalid, "requirement failed: App Update must have app id set")
		}
		c, err := s.prepare(h, "", item, ports)
		if c != nil {
			warnings = append(warnings, c.warnings...)
		}
		if err != nil {
			return nil, warnings, desk.Under(err, at)
		}
		puts = append(puts, c.put)
	}
	return puts, warnings, nil
}

func (s *api) deleteApp(w http.ResponseWriter, r *http.Request) {
	id := pathID(r)
	if s.missing(id) {
		s.Fail(w, r, noApp(id))
		return
	}
	s.command(w, r, scheduler.RemoveApp{App: id, Force: desk.Yes(r, "force", true), Wipe: desk.Yes(r, "wipe", false)})
}

func (s *api) restartApp(w http.ResponseWriter, r *http.Request) {
	id := pathID(r)
	if s.missing(id) {
		s.Fail(w, r, noApp(id))
		return
	}
	s.command(w, r, scheduler.RestartApp{App: id, Force: desk.Yes(r, "force", false)})
}

func (s *api) missing(id state.AppID) (missing bool) {
	s.Core.View(func(st *state.State) { missing = appOf(st, id) == nil })
	return missing
}

// command sends a command whose answer is a DeploymentResult.
func (s *api) command(w http.ResponseWriter, r *http.Request, e scheduler.Event) {
	ctx, cancel := desk.Limited(r)
	defer cancel()
	reply, err := s.Do(ctx, e)
	if err != nil {
		s.refused(w, r, picture.Parent(appIn(e)), err)
		return
	}
	result := s.result(w, reply)
	s.groupChanged(picture.Parent(appIn(e)), result.Version)
	s.JSON(w, r, http.StatusOK, result)
}

// appIn gives the app that a command is about.
func appIn(e scheduler.Event) state.AppID {
	switch e := e.(type) {
	case scheduler.ScaleApp:
		return e.App
	case scheduler.RestartApp:
		return e.App
	case scheduler.RemoveApp:
		return e.App
	}
	return "/"
}

// turn waits for this request's turn among those that change something, within the limit of a command. done ends it. false: the answer was given.
func (s *api) turn(w http.ResponseWriter, r *http.Request) (ctx context.Context, done func(), ok bool) {
	ctx, cancel := desk.Limited(r)
	unlock, err := s.lock(ctx)
	if err != nil {
		cancel()
		s.Fail(w, r, err)
		return nil, nil, false
	}
	return ctx, func() { unlock(); cancel() }, true
}

// lock waits for the turn to change apps. Unavailable when ctx ends before it comes: nothing was done.
func (s *api) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.writing <- struct{}{}:
		return func() { <-s.writing }, nil
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "other changes are under way; nothing was done")
	}
}
