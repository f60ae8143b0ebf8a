package task

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// encodeOperation makes one operation of an ACCEPT.
func encodeOperation(op *reserve.Op) (out mesos.Offer_Operation, err error) {
	list := make([]mesos.Resource, 0, len(op.Resources))
	for i := range op.Resources {
		r, err := encodeResource(&op.Resources[i])
		if err != nil {
			return out, err
		}
		list = append(list, *r)
	}
	if len(list) == 0 {
		return out, fault.New(fault.Internal, "operation without resources")
	}
	if op.ID != "" {
		out.ID = &mesos.OperationID{Value: op.ID}
	}
	switch op.Kind {
	case reserve.Reserve:
		out.Type, out.Reserve = mesos.Offer_Operation_RESERVE, &mesos.Offer_Operation_Reserve{Resources: list}
	case reserve.Unreserve:
		out.Type, out.Unreserve = mesos.Offer_Operation_UNRESERVE, &mesos.Offer_Operation_Unreserve{Resources: list}
	case reserve.Create:
		out.Type, out.Create = mesos.Offer_Operation_CREATE, &mesos.Offer_Operation_Create{Volumes: list}
	case reserve.Destroy:
		out.Type, out.Destroy = mesos.Offer_Operation_DESTROY, &mesos.Offer_Operation_Destroy{Volumes: list}
	case reserve.Grow:
		if op.Addition == nil {
			return out, fault.New(fault.Internal, "GROW_VOLUME without an addition")
		}
		add, err := encodeResource(op.Addition)
		if err != nil {
			return out, err
		}
		out.Type, out.GrowVolume = mesos.Offer_Operation_GROW_VOLUME, &mesos.Offer_Operation_GrowVolume{Volume: list[0], Addition: *add}
	case reserve.Shrink:
		out.Type, out.ShrinkVolume = mesos.Offer_Operation_SHRINK_VOLUME, &mesos.Offer_Operation_ShrinkVolume{Volume: list[0], Subtract: mesos.Value_Scalar{Value: op.Subtract}}
	case reserve.CreateDisk:
		kind := mesos.Resource_DiskInfo_Source_MOUNT
		if op.Target == "BLOCK" {
			kind = mesos.Resource_DiskInfo_Source_BLOCK
		}
		out.Type, out.CreateDisk = mesos.Offer_Operation_CREATE_DISK, &mesos.Offer_Operation_CreateDisk{Source: list[0], TargetType: kind}
	case reserve.DestroyDisk:
		out.Type, out.DestroyDisk = mesos.Offer_Operation_DESTROY_DISK, &mesos.Offer_Operation_DestroyDisk{Source: list[0]}
	default:
		return out, fault.New(fault.Internal, "operation %q is not known", op.Kind)
	}
	return out, nil
}

// encodeDisk gives a disk the persistent volume that the scheduler says, and nothing else: its source is as offered.
func encodeDisk(offered *mesos.Resource_DiskInfo, d *state.Disk) *mesos.Resource_DiskInfo {
	if d == nil {
		return nil
	}
	out := &mesos.Resource_DiskInfo{}
	if offered != nil {
		out.Source = offered.Source
	}
	if d.Persistence == "" {
		return out
	}
	if p := offered.GetPersistence(); p != nil && p.ID == d.Persistence {
		return offered
	}
	out.Persistence = &mesos.Resource_DiskInfo_Persistence{ID: d.Persistence}
	if d.Principal != "" {
		out.Persistence.Principal = ptr(d.Principal)
	}
	out.Volume = &mesos.Volume{ContainerPath: d.ContainerPath, Mode: mesos.RW.Enum()}
	return out
}

// encodeStack gives the reservations that the scheduler says: those that were offered as they were, pushed ones after them.
func encodeStack(offered []mesos.Resource_ReservationInfo, stack []state.Reservation) []mesos.Resource_ReservationInfo {
	out := offered[:min(len(offered), len(stack)):min(len(offered), len(stack))]
	for _, v := range stack[len(out):] {
		out = append(out, encodeReservation(v))
	}
	return out
}

func acknowledgeOperation(c scheduler.AcknowledgeOperation) *msched.Call_AcknowledgeOperationStatus {
	out := &msched.Call_AcknowledgeOperationStatus{OperationID: mesos.OperationID{Value: c.ID}, UUID: c.UUID}
	if c.Agent != "" {
		out.AgentID = &mesos.AgentID{Value: string(c.Agent)}
	}
	if c.Provider != "" {
		out.ResourceProviderID = &mesos.ResourceProviderID{Value: c.Provider}
	}
	return out
}

func reconcileOperations(c scheduler.ReconcileOperations) *msched.Call_ReconcileOperations {
	out := &msched.Call_ReconcileOperations{}
	for _, o := range c.Operations {
		q := msched.Call_ReconcileOperations_Operation{OperationID: mesos.OperationID{Value: o.ID}}
		if o.Agent != "" {
			q.AgentID = &mesos.AgentID{Value: string(o.Agent)}
		}
		out.Operations = append(out.Operations, q)
	}
	return out
}
