package scheduler

import (
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// AdoptVolume makes a volume that storage has already an app's: its instance finds it by its name, and it is never created in case it is not
// there. A volume that is recorded is passed on, while nobody uses it and its claim is free. The app need not be there yet.
type AdoptVolume struct {
	Ref     volume.Ref
	App     state.AppID
	Ordinal int
	Shared  bool
}

func (AdoptVolume) event() {}

func (w *work) adoptVolume(e AdoptVolume) *Reply {
	instance := state.NewInstanceID(e.App, e.Ordinal)
	if e.Shared {
		instance = ""
	}
	v := w.volumeByRef(e.Ref)
	if v == nil {
		v = &state.Volume{UID: state.VolumeUID(w.uuid7()), Ref: e.Ref, App: e.App, Instance: instance, Shared: e.Shared, AdoptOnly: true,
			Phase: state.VolumePlanned, CreatedAt: w.now}
		w.putVolume(v)
		return &Reply{Volumes: []state.VolumeUID{v.UID}}
	}
	if v.App == e.App && v.Instance == instance && v.Shared == e.Shared && v.Phase != state.VolumeRemoving {
		return &Reply{Volumes: []state.VolumeUID{v.UID}}
	}
	claim := w.claim(v.UID)
	switch user := w.userOf(v); {
	case v.Shared != e.Shared:
		return refuse(fault.New(fault.Conflict, "volume %s is %s; a volume does not change that", v.Ref, sharing(v)))
	case user != "":
		return refuse(fault.New(fault.Conflict, "volume %s is used by instance %s of app %s: scale that away first", v.Ref, user, v.App))
	case v.Phase == state.VolumeRemoving || v.Phase == state.VolumeCreating || v.Op != "":
		return refuse(fault.New(fault.Conflict, "volume %s is being worked on: %s", v.Ref, v.Phase))
	case !w.session().AuthoritySeen:
		return refuse(fault.New(fault.Unavailable, "the lease authority was not read yet, so it is not known who has volume %s", v.Ref))
	case claim != nil && claim.State != state.ClaimFree:
		return refuse(fault.New(fault.Conflict, "volume %s is claimed (%s by node %s): it can be passed on when it is free", v.Ref, claim.State, w.nodeName(claim.Node)))
	}
	c := *v
	c.App, c.Instance = e.App, instance
	w.putVolume(&c)
	return &Reply{Volumes: []state.VolumeUID{v.UID}}
}

// fillAdopted gives a volume that was adopted before its app was there what the app says of it.
func (w *work) fillAdopted(v *state.Volume, m *state.Mount, user string) {
	if !v.AdoptOnly || v.Policy != "" {
		return
	}
	c := *v
	c.Size, c.Options, c.Encrypt, c.Class, c.User, c.Policy = m.Size, m.Options, m.Encrypt, m.Class, user, m.Policy
	if c.Policy == "" {
		c.Policy = w.env.Config.DefaultPolicy
	}
	w.putVolume(&c)
}
