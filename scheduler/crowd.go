package scheduler

import "github.com/holdfast-io/holdfast/internal/fault"

// crowded refuses another deployment while as many as may be are under way. One with force takes the place of those it replaces, as in
// Marathon; rolling one back does so too.
func (w *work) crowded(e Event) error {
	most := w.env.Config.MaxDeployments
	if most <= 0 || len(w.s.Deployments) < most {
		return nil
	}
	if force, deploys := forced(e); force || !deploys {
		return nil
	}
	return fault.New(fault.Denied, "Max number (%d) of running deployments is achieved. Wait for existing deployments to complete or cancel one using force=true parameter. The bound is --max-running-deployments.", most)
}

// forced tells whether a command makes a deployment, and whether it goes on over what is in its way: by force, or because it only asks.
func forced(e Event) (force, deploys bool) {
	switch e := e.(type) {
	case PutApp:
		return e.Force || e.Dry, true
	case ScaleApp:
		return e.Force, true
	case RestartApp:
		return e.Force, true
	case RemoveApp:
		return e.Force, true
	case PutGroup:
		return e.Force || e.Dry, true
	}
	return false, false
}
