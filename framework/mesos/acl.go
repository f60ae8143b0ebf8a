package mesos

import (
	"encoding/json"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// acl writes the rule of Mesos's --acls that lets a principal do something to the named objects: what is missing when a master forbids it.
func acl(action, principal, objects string, names ...string) string {
	who := map[string]any{"type": "ANY"} // without credentials
	if principal != "" {
		who = map[string]any{"values": []string{principal}}
	}
	b, err := json.Marshal(map[string]any{action: []any{map[string]any{"principals": who, objects: map[string]any{"values": names}}}})
	if err != nil {
		return action
	}
	return string(b)
}

// registerACL is what a framework needs to register with its roles.
func (c *Client) registerACL() string {
	return "the master's --acls need " + acl("register_frameworks", c.c.Info.GetPrincipal(), "roles", c.c.Info.Roles...)
}

// forbidden tells whether a master's words are about rights rather than about what was asked.
func forbidden(text string) bool {
	low := strings.ToLower(text)
	for _, words := range []string{"not authorized", "unauthorized", "authorization failure", "not allowed to"} {
		if strings.Contains(low, words) {
			return true
		}
	}
	return false
}

// explainStatus adds to the status of a task that the master forbade what to change.
func (c *Client) explainStatus(s *mesos.TaskStatus) {
	if s.GetReason() != mesos.REASON_TASK_UNAUTHORIZED {
		return
	}
	text := s.GetMessage() + " (the master's --acls need " + acl("run_tasks", c.c.Info.GetPrincipal(), "users", "the user of the task") + ")"
	s.Message = &text
}
