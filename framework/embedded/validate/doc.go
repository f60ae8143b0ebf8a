// Package validate checks what frameworks and operators ask of the master, by Mesos's rules, in
// Mesos's order and with Mesos's words: calls, framework descriptions, tasks, task groups and
// operations on resources. It is pure: what it must know of the master's state comes as arguments.
//
// The second half of an operation, what it turns into what, is here too (Conversion).
package validate

import "github.com/holdfast-io/holdfast/framework/embedded/resource"

// invalidf makes an error in Mesos's words.
var invalidf = resource.Invalidf
