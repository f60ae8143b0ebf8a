// Package task turns the scheduler's calls into Mesos's: above all a launch into a TaskInfo, with its environment, container,
// volumes, health check and discovery info. It is data to data; the golden files under testdata show every form.
package task

import (
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
)

// Encode makes the Mesos call of a scheduler call. ok is false for calls that are not for the master. The framework id is put
// in by the Client.
func (e *Encoder) Encode(c scheduler.Call) (call *msched.Call, ok bool, err error) {
	switch c := c.(type) {
	case scheduler.Accept:
		call, err = e.accept(c)
		return call, true, err
	case scheduler.Decline:
		return &msched.Call{Type: msched.Call_DECLINE, Decline: &msched.Call_Decline{OfferIDs: offerIDs(c.Offers), Filters: filters(c.Refuse)}}, true, nil
	case scheduler.Kill:
		k := &msched.Call_Kill{TaskID: mesos.TaskID{Value: string(c.Task)}}
		if c.Agent != "" {
			k.AgentID = &mesos.AgentID{Value: string(c.Agent)}
		}
		if c.Grace > 0 {
			k.KillPolicy = killPolicy(c.Grace)
		}
		return &msched.Call{Type: msched.Call_KILL, Kill: k}, true, nil
	case scheduler.Acknowledge:
		return &msched.Call{Type: msched.Call_ACKNOWLEDGE, Acknowledge: &msched.Call_Acknowledge{
			AgentID: mesos.AgentID{Value: string(c.Agent)}, TaskID: mesos.TaskID{Value: string(c.Task)}, UUID: c.UUID}}, true, nil
	case scheduler.Reconcile:
		r := &msched.Call_Reconcile{}
		for _, t := range c.Tasks {
			rt := msched.Call_Reconcile_Task{TaskID: mesos.TaskID{Value: string(t.Task)}}
			if t.Agent != "" {
				rt.AgentID = &mesos.AgentID{Value: string(t.Agent)}
			}
			r.Tasks = append(r.Tasks, rt)
		}
		return &msched.Call{Type: msched.Call_RECONCILE, Reconcile: r}, true, nil
	case scheduler.AcknowledgeOperation:
		return &msched.Call{Type: msched.Call_ACKNOWLEDGE_OPERATION_STATUS, AcknowledgeOperationStatus: acknowledgeOperation(c)}, true, nil
	case scheduler.ReconcileOperations:
		return &msched.Call{Type: msched.Call_RECONCILE_OPERATIONS, ReconcileOperations: reconcileOperations(c)}, true, nil
	case scheduler.Revive:
		call := &msched.Call{Type: msched.Call_REVIVE}
		if len(c.Roles) > 0 {
			call.Revive = &msched.Call_Revive{Roles: c.Roles}
		}
		return call, true, nil
	case scheduler.AcceptInverse:
		return &msched.Call{Type: msched.Call_ACCEPT_INVERSE_OFFERS, AcceptInverseOffers: &msched.Call_AcceptInverseOffers{InverseOfferIDs: offerIDs(c.IDs)}}, true, nil
	case scheduler.DeclineInverse:
		return &msched.Call{Type: msched.Call_DECLINE_INVERSE_OFFERS, DeclineInverseOffers: &msched.Call_DeclineInverseOffers{InverseOfferIDs: offerIDs(c.IDs), Filters: filters(c.Refuse)}}, true, nil
	case scheduler.EndFramework:
		return &msched.Call{Type: msched.Call_TEARDOWN}, true, nil
	case scheduler.Suppress:
		call := &msched.Call{Type: msched.Call_SUPPRESS}
		if len(c.Roles) > 0 {
			call.Suppress = &msched.Call_Suppress{Roles: c.Roles}
		}
		return call, true, nil
	}
	return nil, false, nil
}

func (e *Encoder) accept(a scheduler.Accept) (*msched.Call, error) {
	launch := &mesos.Offer_Operation_Launch{}
	var groups []mesos.Offer_Operation
	for i := range a.Launches {
		if d := a.Launches[i].Def; d != nil && d.Spec.Pod() {
			g, err := e.LaunchGroup(&a.Launches[i], a.Agent)
			if err != nil {
				return nil, fault.Op(err, "task group of launch %d on agent %s", i, a.Agent)
			}
			groups = append(groups, mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH_GROUP, LaunchGroup: g})
			continue
		}
		info, err := e.TaskInfo(&a.Launches[i], a.Agent)
		if err != nil {
			return nil, fault.Op(err, "task of launch %d on agent %s", i, a.Agent)
		}
		launch.TaskInfos = append(launch.TaskInfos, *info)
	}
	acc := &msched.Call_Accept{OfferIDs: offerIDs(a.Offers), Filters: filters(a.Refuse)}
	for i := range a.Operations {
		op, err := encodeOperation(&a.Operations[i])
		if err != nil {
			return nil, fault.Op(err, "operation %s on agent %s", a.Operations[i].Kind, a.Agent)
		}
		acc.Operations = append(acc.Operations, op)
	}
	if len(launch.TaskInfos) > 0 {
		acc.Operations = append(acc.Operations, mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH, Launch: launch})
	}
	acc.Operations = append(acc.Operations, groups...)
	return &msched.Call{Type: msched.Call_ACCEPT, Accept: acc}, nil
}

func offerIDs(ids []string) []mesos.OfferID {
	out := make([]mesos.OfferID, 0, len(ids))
	for _, id := range ids {
		out = append(out, mesos.OfferID{Value: id})
	}
	return out
}

// filters are always sent: without them Mesos refuses for five seconds.
func filters(d time.Duration) *mesos.Filters {
	s := d.Seconds()
	return &mesos.Filters{RefuseSeconds: &s}
}

func killPolicy(d time.Duration) *mesos.KillPolicy {
	return &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: d.Nanoseconds()}}
}

func ptr[T any](v T) *T { return &v }
