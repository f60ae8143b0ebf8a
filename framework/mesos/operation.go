package mesos

import (
	"strconv"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// silentMaster tells whether a master of a version refuses operations with an id on an agent's own resources: feedback on those came with
// Mesos 1.8. A version that cannot be read counts as new: should it refuse, the scheduler asks again without ids.
func silentMaster(version string) bool {
	major, rest, ok := strings.Cut(version, ".")
	if !ok {
		return false
	}
	minor, _, _ := strings.Cut(rest, ".")
	minor, _, _ = strings.Cut(minor, "-")
	a, err := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err == nil && err2 == nil && (a < 1 || a == 1 && b < 8)
}

// explainOperation adds to the status of an operation that the master forbade what to change.
func (c *Client) explainOperation(s *mesos.OperationStatus) {
	if s.State == mesos.OPERATION_FINISHED || !forbidden(s.GetMessage()) {
		return
	}
	role := "the framework's role"
	if len(c.c.Info.Roles) > 0 {
		role = c.c.Info.Roles[0]
	}
	p := c.c.Info.GetPrincipal()
	text := s.GetMessage() + " (the master's --acls need " + strings.Join([]string{
		acl("reserve_resources", p, "roles", role), acl("unreserve_resources", p, "reserver_principals", p),
		acl("create_volumes", p, "roles", role), acl("destroy_volumes", p, "creator_principals", p), acl("resize_volumes", p, "roles", role)}, ", ") + ")"
	s.Message = &text
}
