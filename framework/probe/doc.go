// Package probe runs the checks that Marathon leaves to its scheduler: HTTP, HTTPS and TCP health checks and readiness checks. It asks the tasks
// of running instances, and only those, at the addresses that Mesos gave them; it keeps what came of it in memory, and reports to the
// scheduler only what changes a decision. Many checks are under way at a time, but never more than a bound: when there are too many, or this
// machine is slow, they are late, and late is not failed.
package probe
