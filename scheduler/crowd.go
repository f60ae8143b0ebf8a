package scheduler

import "github.com/holdfast-io/holdfast/internal/fault"

// crowded refuses another deployment while as many as may be are under way. One with force takes the place of those it replaces, as in
// Marathon; rolling one back does so too.
func (w *work) crowded(e Event) error {
	most := w.env.Config.MaxDeployments
	if most <= 0 || len(w.s.Deployments) < most {
		return nil
	}
	force := true
	switch e := e.(type) {
	case PutApp:
		force = e.Force || e.Dry
	case ScaleApp:
		force = e.Force
	case RestartApp:
		force = e.Force
	case RemoveApp:
		force = e.Force
	case PutGroup:
		force = e.Force || e.Dry
	}
	if force {
		return nil
	}
	return fault.New(fault.Denied, "Max number (%d) of running deployments is achieved. Wait for existing deployments to complete or cancel one using force=true parameter. The bound is --max-running-deployments.", most)
}
