package mesos

import (
	"maps"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Identity is what the framework registers with.
type Identity struct {
	Name, User, Principal, Hostname, Webui string
	Roles                                  []string
	FailoverTimeout                        time.Duration
	// Labels are shown in Mesos; they mean nothing to it.
	Labels map[string]string
	// GPU asks for offers of agents with GPUs, which Mesos otherwise keeps from frameworks.
	GPU bool
}

// FrameworkInfo of an identity. The capabilities are those that the scheduler lives up to: several roles, refined
// reservations, statuses of partitioned agents (TASK_UNREACHABLE instead of TASK_LOST), fault domains, and TASK_KILLING.
// SHARED_RESOURCES is left out: shared persistent volumes are not used.
func (i Identity) FrameworkInfo() mesos.FrameworkInfo {
	info := mesos.FrameworkInfo{
		User:            i.User,
		Name:            i.Name,
		Roles:           i.Roles,
		FailoverTimeout: ptr(i.FailoverTimeout.Seconds()),
		Checkpoint:      ptr(true),
	}
	if i.Principal != "" {
		info.Principal = ptr(i.Principal)
	}
	if i.Hostname != "" {
		info.Hostname = ptr(i.Hostname)
	}
	if i.Webui != "" {
		info.WebUiURL = ptr(i.Webui)
	}
	for _, k := range slices.Sorted(maps.Keys(i.Labels)) {
		if info.Labels == nil {
			info.Labels = &mesos.Labels{}
		}
		info.Labels.Labels = append(info.Labels.Labels, mesos.Label{Key: k, Value: ptr(i.Labels[k])})
	}
	kinds := []mesos.FrameworkInfo_Capability_Type{
		mesos.FrameworkInfo_Capability_MULTI_ROLE,
		mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT,
		mesos.FrameworkInfo_Capability_PARTITION_AWARE,
		mesos.FrameworkInfo_Capability_REGION_AWARE,
		mesos.FrameworkInfo_Capability_TASK_KILLING_STATE,
	}
	if i.GPU {
		kinds = append(kinds, mesos.FrameworkInfo_Capability_GPU_RESOURCES)
	}
	for _, k := range kinds {
		info.Capabilities = append(info.Capabilities, mesos.FrameworkInfo_Capability{Type: k})
	}
	return info
}

func ptr[T any](v T) *T { return &v }
