package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
)

// roles are all roles to take offers in, the first one first.
func (c *frameworkConfig) roles() []string {
	out := []string{c.role}
	for _, r := range c.moreRoles {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// several gives roles when there is more than one.
func several(roles []string) []string {
	if len(roles) > 1 {
		return roles
	}
	return nil
}

// checkRoles refuses roles that Mesos does not have.
func (c *frameworkConfig) checkRoles() error {
	for _, r := range c.roles() {
		bad := r == "" || r == "." || r == ".." || strings.HasPrefix(r, "-") || strings.HasPrefix(r, "/") || strings.HasSuffix(r, "/") || strings.ContainsAny(r, " \t\n\r\v\f\b\x7f\\")
		switch {
		case r == "*" || strings.Contains(r, "*"):
			return console.Usage(fmt.Sprintf("role %q: a role of its own is needed, because Mesos cannot reserve for *", r))
		case bad || slices.ContainsFunc(strings.Split(r, "/"), func(part string) bool { return part == "" || part == "." || part == ".." }):
			return console.Usage(fmt.Sprintf("role %q: Mesos has no such role: no spaces, no backslash, no leading '-', no empty, . or .. part between slashes", r))
		}
	}
	return nil
}
