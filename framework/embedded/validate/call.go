package validate

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
)

// Call checks that a scheduler call has what its type needs. principal is the authenticated one, nil without authentication.
func Call(c *scheduler.Call, principal *string) error {
	if c.Type == scheduler.Call_UNKNOWN {
		return invalidf("Expecting 'type' to be present")
	}
	if c.Type == scheduler.Call_SUBSCRIBE {
		return subscribeCall(c, principal)
	}
	if c.FrameworkID == nil {
		return invalidf("Expecting 'framework_id' to be present")
	}
	if name, missing := missingBody(c); missing {
		return invalidf("Expecting '%s' to be present", name)
	}
	switch c.Type {
	case scheduler.Call_ACKNOWLEDGE:
		return uuidBytes(c.Acknowledge.UUID)
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		if err := uuidBytes(c.AcknowledgeOperationStatus.UUID); err != nil {
			return err
		}
		if c.AcknowledgeOperationStatus.AgentID == nil {
			return invalidf("Expecting 'agent_id' to be present")
		}
	case scheduler.Call_UPDATE_FRAMEWORK:
		if id := c.UpdateFramework.FrameworkInfo.ID; id == nil || id.Value != c.FrameworkID.Value {
			return invalidf("'framework_id' differs from 'update_framework.framework_info.id'")
		}
	}
	return nil
}

func subscribeCall(c *scheduler.Call, principal *string) error {
	if c.Subscribe == nil || c.Subscribe.FrameworkInfo == nil {
		return invalidf("Expecting 'subscribe' to be present")
	}
	info := c.Subscribe.FrameworkInfo
	if info.GetID().GetValue() != c.GetFrameworkID().GetValue() {
		return invalidf("'framework_id' differs from 'subscribe.framework_info.id'")
	}
	if principal != nil && info.Principal != nil && *principal != *info.Principal {
		return invalidf("Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", *principal, *info.Principal)
	}
	return nil
}

func missingBody(c *scheduler.Call) (string, bool) {
	switch c.Type {
	case scheduler.Call_ACCEPT:
		return "accept", c.Accept == nil
	case scheduler.Call_DECLINE:
		return "decline", c.Decline == nil
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		return "accept_inverse_offers", c.AcceptInverseOffers == nil
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		return "decline_inverse_offers", c.DeclineInverseOffers == nil
	case scheduler.Call_KILL:
		return "kill", c.Kill == nil
	case scheduler.Call_SHUTDOWN:
		return "shutdown", c.Shutdown == nil
	case scheduler.Call_ACKNOWLEDGE:
		return "acknowledge", c.Acknowledge == nil
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		return "acknowledge_operation_status", c.AcknowledgeOperationStatus == nil
	case scheduler.Call_RECONCILE:
		return "reconcile", c.Reconcile == nil
	case scheduler.Call_RECONCILE_OPERATIONS:
		return "reconcile_operations", c.ReconcileOperations == nil
	case scheduler.Call_MESSAGE:
		return "message", c.Message == nil
	case scheduler.Call_REQUEST:
		return "request", c.Request == nil
	case scheduler.Call_UPDATE_FRAMEWORK:
		return "update_framework", c.UpdateFramework == nil
	}
	return "", false
}

func uuidBytes(b []byte) error {
	if len(b) != 16 {
		return invalidf("Not a valid UUID")
	}
	return nil
}

// OperatorCall checks that an operator call has what its type needs.
func OperatorCall(c *master.Call) error {
	if c.Type == master.Call_UNKNOWN {
		return invalidf("Expecting 'type' to be present")
	}
	missing := ""
	need := func(name string, absent bool) {
		if absent {
			missing = name
		}
	}
	switch c.Type {
	case master.Call_RESERVE_RESOURCES:
		need("reserve_resources", c.ReserveResources == nil)
	case master.Call_UNRESERVE_RESOURCES:
		need("unreserve_resources", c.UnreserveResources == nil)
	case master.Call_CREATE_VOLUMES:
		need("create_volumes", c.CreateVolumes == nil)
	case master.Call_DESTROY_VOLUMES:
		need("destroy_volumes", c.DestroyVolumes == nil)
	case master.Call_GROW_VOLUME:
		need("grow_volume", c.GrowVolume == nil)
	case master.Call_SHRINK_VOLUME:
		need("shrink_volume", c.ShrinkVolume == nil)
	case master.Call_UPDATE_MAINTENANCE_SCHEDULE:
		need("update_maintenance_schedule", c.UpdateMaintenanceSchedule == nil)
	case master.Call_DRAIN_AGENT:
		need("drain_agent", c.DrainAgent == nil)
	case master.Call_DEACTIVATE_AGENT:
		need("deactivate_agent", c.DeactivateAgent == nil)
	case master.Call_REACTIVATE_AGENT:
		need("reactivate_agent", c.ReactivateAgent == nil)
	case master.Call_MARK_AGENT_GONE:
		need("mark_agent_gone", c.MarkAgentGone == nil)
	case master.Call_TEARDOWN:
		need("teardown", c.Teardown == nil)
	}
	if missing != "" {
		return invalidf("Expecting '%s' to be present", missing)
	}
	return nil
}

// ID checks an id that becomes the name of a directory.
func ID(id string) error {
	switch {
	case id == "":
		return invalidf("ID must not be empty")
	case len(id) > 255:
		return invalidf("ID must not be greater than 255 characters")
	case id == "." || id == "..":
		return invalidf("'%s' is disallowed", id)
	}
	for i := range len(id) {
		if c := id[i]; c < 0x20 || c == 0x7f || c == '/' || c == '\\' {
			return invalidf("'%s' contains invalid characters", id)
		}
	}
	return nil
}

// Roles returns the roles of a framework: the list when it is MULTI_ROLE, else the one role.
func Roles(info *mesos.FrameworkInfo) []string {
	if HasCapability(info, mesos.FrameworkInfo_Capability_MULTI_ROLE) {
		return info.Roles
	}
	if info.Role == nil || *info.Role == "" {
		return []string{"*"}
	}
	return []string{*info.Role}
}

// HasCapability says whether a framework claims a capability.
func HasCapability(info *mesos.FrameworkInfo, want mesos.FrameworkInfo_Capability_Type) bool {
	for i := range info.Capabilities {
		if info.Capabilities[i].Type == want {
			return true
		}
	}
	return false
}
