package api

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// classRoutes adds the operator's recipes for volumes, and the adoption of volumes.
func (s *server) classRoutes(t *desk.Table) {
	t.Handle(http.MethodPost, "/v1/volumes", "makes a volume that storage has already an app's: driver, name, app, instance, shared", s.adoptVolume)
	t.Handle(http.MethodGet, "/v1/classes", "lists classes of volumes", s.classes)
	t.Handle(http.MethodGet, "/v1/classes/{name}", "gives a class of volumes", s.class)
	t.Handle(http.MethodPut, "/v1/classes/{name}", "makes or replaces a class of volumes", s.putClass)
	t.Handle(http.MethodDelete, "/v1/classes/{name}", "removes a class of volumes that no app names", s.removeClass)
}

func showClass(c *state.Class) client.Class {
	out := client.Class{Name: c.Name, Driver: c.Driver, Options: c.Options, Policy: c.Policy, Zones: c.Zones, Reclaim: cmp.Or(c.Reclaim, "keep"), Encrypt: c.Encrypt, UpdatedAt: c.UpdatedAt}
	if c.Size > 0 {
		out.Size = c.Size.String()
	}
	return out
}

func (s *server) classes(w http.ResponseWriter, r *http.Request) {
	out := []client.Class{}
	s.Core.View(func(st *state.State) {
		for _, c := range st.Classes {
			out = append(out, showClass(c))
		}
	})
	slices.SortFunc(out, func(a, b client.Class) int { return cmp.Compare(a.Name, b.Name) })
	s.JSON(w, r, http.StatusOK, map[string]any{"classes": out})
}

func (s *server) class(w http.ResponseWriter, r *http.Request) {
	name := mux.Vars(r)["name"]
	var c *state.Class
	s.Core.View(func(st *state.State) { c = st.Classes[name] })
	if c == nil {
		s.Fail(w, r, fault.New(fault.NotFound, "class %s does not exist", desk.Quoted(name)))
		return
	}
	s.JSON(w, r, http.StatusOK, showClass(c))
}

func (s *server) putClass(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	if v.Kind == document.Object {
		v.Set("name", &document.Value{Kind: document.String, Text: mux.Vars(r)["name"]})
	}
	c, warnings, err := readClass(v)
	desk.Warn(w, warnings)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	ctx, cancel := desk.Limited(r)
	defer cancel()
	if _, err := s.Do(ctx, scheduler.PutClass{Class: c}); err != nil {
		s.Fail(w, r, err)
		return
	}
	s.class(w, r)
}

func (s *server) removeClass(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := desk.Limited(r)
	defer cancel()
	if _, err := s.Do(ctx, scheduler.RemoveClass{Name: mux.Vars(r)["name"]}); err != nil {
		s.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// readClass reads and checks a class. What classes have elsewhere and nothing here would carry out is refused, not left out.
func readClass(v *document.Value) (*state.Class, []string, error) {
	run := &document.Run{}
	in := run.Read(v)
	in.Require("name", "driver")
	c := &state.Class{Options: in.StrMap("options"), Zones: in.Strs("zones")}
	text := func(name string, words ...string) string {
		var s *string
		if len(words) > 0 {
			s = in.Enum(name, words...)
		} else {
			s = in.StrLen(name, 1, 200)
		}
		if s == nil {
			return ""
		}
		return *s
	}
	c.Name, c.Driver = text("name"), text("driver")
	c.Policy, c.Reclaim = text("policy", "lease", "operator"), text("reclaim", "keep", "delete")
	if e := in.Flag("encrypt"); e != nil {
		c.Encrypt = *e
	}
	in.Has("updatedAt") // what GET gives may come back
	if c.Name != "" && volume.CheckName(c.Name) != nil {
		in.Problem("name", volume.CheckName(c.Name).Error())
	}
	if c.Driver != "" && volume.CheckDriver(c.Driver) != nil {
		in.Problem("driver", volume.CheckDriver(c.Driver).Error())
	}
	if c.Encrypt && strings.HasPrefix(c.Driver, "csi/") {
		in.Problem("encrypt", "is not for CSI drivers, which are not known to encrypt volumes when asked so: name the plugin's own parameter for it among the options")
	}
	if err := volume.CheckOptions(c.Options); err != nil {
		in.Problem("options", err.Error())
	}
	if _, there := c.Options["size"]; there {
		in.Problem("options", "the size is a field of the class, not an option")
	}
	if size := in.Value("size"); size != nil {
		n, err := volume.ParseSize(size.Text)
		if size.Kind != document.String && size.Kind != document.Number || err != nil {
			in.Problem("size", "is not a number of GiB, or a number with B, K, M, G or T")
		}
		c.Size = n
	}
	for _, name := range []string{"snapshots", "snapshotSchedule", "attachLimit"} {
		if in.Has(name) {
			in.Problem(name, "is not supported by this version of Holdfast (attach limits come from drivers)")
		}
	}
	in.Close()
	return c, run.Warnings, run.Problems.Err("Object is not valid")
}

// ReadClasses reads a YAML or JSON file with a list of classes, or an object with one under "classes".
func ReadClasses(raw []byte) ([]*state.Class, error) {
	text, err := yaml.YAMLToJSON(raw)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the classes")
	}
	v, err := document.Parse(text)
	if err != nil {
		return nil, err
	}
	if v.Kind == document.Object && v.Fields["classes"] != nil {
		v = v.Fields["classes"]
	}
	if v.Kind != document.Array {
		return nil, fault.New(fault.Invalid, "classes are a list, or an object with one under \"classes\"")
	}
	var out []*state.Class
	for i, item := range v.List {
		c, warnings, err := readClass(item)
		if err == nil && len(warnings) > 0 {
			err = fault.New(fault.Invalid, "%s", warnings[0])
		}
		if err != nil {
			return nil, fault.Op(err, "class %d", i+1)
		}
		out = append(out, c)
	}
	return out, nil
}
