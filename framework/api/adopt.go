package api

import (
	"net/http"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/rule"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// adoptVolume makes a volume that storage has already an app's.
func (s *server) adoptVolume(w http.ResponseWriter, r *http.Request) {
	v, err := desk.ReadBody(w, r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	e, warnings, err := readAdoption(v)
	desk.Warn(w, warnings)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	ctx, cancel := desk.Limited(r)
	defer cancel()
	reply, err := s.Do(ctx, e)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	var out any
	s.Core.View(func(st *state.State) {
		for _, uid := range reply.Volumes {
			if v := st.Volumes[uid]; v != nil {
				out = show.Volume(st, v)
			}
		}
	})
	s.JSON(w, r, http.StatusOK, out)
}

func readAdoption(v *document.Value) (e scheduler.AdoptVolume, warnings []string, err error) {
	run := &document.Run{}
	in := run.Read(v)
	in.Require("driver", "name", "app")
	text := func(name string) string {
		if s := in.Str(name); s != nil {
			return *s
		}
		return ""
	}
	e.Ref = volume.Ref{Driver: text("driver"), Name: text("name")}
	e.App = state.AppID(marathon.AbsoluteID(text("app")))
	if n := in.Int("instance", 0, rule.MaxInstances-1); n != nil {
		e.Ordinal = *n
	}
	if f := in.Flag("shared"); f != nil {
		e.Shared = *f
	}
	in.Close()
	if e.Ref.Driver != "" && volume.CheckDriver(e.Ref.Driver) != nil {
		in.Problem("driver", volume.CheckDriver(e.Ref.Driver).Error())
	}
	if e.Ref.Name != "" && volume.CheckName(e.Ref.Name) != nil {
		in.Problem("name", volume.CheckName(e.Ref.Name).Error())
	}
	if in.Has("app") && !rule.ValidID(string(e.App)) {
		in.Problem("app", rule.SegmentError)
	}
	return e, run.Warnings, run.Problems.Err("Object is not valid")
}
