package validate

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// The least an executor may ask for.
const (
	minCPUs = 0.01
	minMem  = 32 // MB
)

// TaskContext is what the master knows of the place a task is launched at.
type TaskContext struct {
	AgentID string
	// Used says that the framework has a live task of that id, Unreachable that it has one on an agent that is cut off.
	Used, Unreachable func(taskID string) bool
	// Executor returns the executor of that id running on the agent for the framework, nil when there is none.
	Executor func(executorID string) *mesos.ExecutorInfo
	// Offered is what is left of the accepted offers.
	Offered resource.List
}

// Task checks a task of a LAUNCH operation.
func Task(t *mesos.TaskInfo, c TaskContext) error {
	if err := task(t, c); err != nil {
		return err
	}
	if (t.Executor != nil) == (t.Command != nil) {
		return invalidf("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")
	}
	total := resource.Add(nil, t.Resources...)
	if e := t.Executor; e != nil {
		if err := taskExecutor(e, c); err != nil {
			return err
		}
		if overlap(t.Resources, e.Resources) {
			return invalidf("There are overlapping resources in the task resources %s and executor resources %s",
				resource.Format(t.Resources), resource.Format(e.Resources))
		}
		if c.Executor(e.ExecutorID.Value) == nil {
			total = resource.Add(total, e.Resources...)
		}
	}
	if !resource.Contains(c.Offered, total) {
		return invalidf("Total resources %s required by task and its executor is more than available %s",
			resource.Format(total), resource.Format(c.Offered))
	}
	return nil
}

func taskExecutor(e *mesos.ExecutorInfo, c TaskContext) error {
	if err := executor(e, c); err != nil {
		return err
	}
	if e.Type != mesos.ExecutorInfo_UNKNOWN && e.Type != mesos.ExecutorInfo_CUSTOM {
		return invalidf("'ExecutorInfo.type' must be 'CUSTOM'")
	}
	if e.Command == nil {
		return invalidf("'ExecutorInfo.command' must be set")
	}
	return nil
}

// task checks what holds for every task.
func task(t *mesos.TaskInfo, c TaskContext) error {
	id := t.TaskID.Value
	if err := ID(id); err != nil {
		return err
	}
	switch {
	case c.Used(id):
		return invalidf("Task has duplicate ID: %s", id)
	case c.Unreachable(id):
		return invalidf("Task reuses the ID of an unreachable task: %s", id)
	case t.AgentID.Value != c.AgentID:
		return invalidf("Task uses invalid agent %s while agent %s is expected", t.AgentID.Value, c.AgentID)
	case t.GetKillPolicy().GetGracePeriod().GetNanoseconds() < 0:
		return invalidf("Task's 'kill_policy.grace_period' must be non-negative")
	case t.GetMaxCompletionTime().GetNanoseconds() < 0:
		return invalidf("Task's `max_completion_time` must be non-negative")
	}
	if err := healthCheck(t.HealthCheck); err != nil {
		return invalidf("Task uses invalid health check: %v", err)
	}
	if err := taskResources(t.Resources); err != nil {
		return err
	}
	if t.Command != nil {
		if err := command(t.Command); err != nil {
			return invalidf("Task's `CommandInfo` is invalid: %v", err)
		}
	}
	if t.Container != nil {
		if err := container(t.Container); err != nil {
			return invalidf("Task's `ContainerInfo` is invalid: %v", err)
		}
	}
	return limits(t)
}

func taskResources(l resource.List) error {
	if len(l) == 0 {
		return invalidf("Task uses no resources")
	}
	if err := Resources(l); err != nil {
		return invalidf("Task uses invalid resources: %v", err)
	}
	if err := uniquePersistence(l); err != nil {
		return invalidf("Task uses duplicate persistence ID: %v", err)
	}
	if err := singleRole(l); err != nil {
		return invalidf("Invalid task resources: %v", err)
	}
	return nil
}

func limits(t *mesos.TaskInfo) error {
	for name, v := range t.Limits {
		switch {
		case name != "cpus" && name != "mem":
			return invalidf("Only cpus and mem may be included in a task's resource limits")
		case name == "cpus" && !resource.Has(t.Resources, name):
			return invalidf("When a CPU limit is specified, a CPU request must also be specified")
		case name == "cpus" && v.Value < resource.Sum(t.Resources, name):
			return invalidf("The cpu limit must be greater than or equal to the cpu request")
		case name == "mem" && !resource.Has(t.Resources, name):
			return invalidf("When a memory limit is specified, a memory request must also be specified")
		case name == "mem" && v.Value < resource.Sum(t.Resources, name):
			return invalidf("The memory limit must be greater than or equal to the memory request")
		}
	}
	return nil
}

func executor(e *mesos.ExecutorInfo, c TaskContext) error {
	if err := ID(e.ExecutorID.Value); err != nil {
		return invalidf("Executor has an invalid ExecutorID: %v", err)
	}
	if e.Type == mesos.ExecutorInfo_DEFAULT {
		switch {
		case e.Command != nil:
			return invalidf("'ExecutorInfo.command' must not be set for 'DEFAULT' executor")
		case e.Container != nil && e.Container.GetType() != mesos.ContainerInfo_MESOS:
			return invalidf("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor")
		case e.Container.GetMesos().GetImage() != nil:
			return invalidf("'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor")
		}
	}
	if e.Type == mesos.ExecutorInfo_CUSTOM && e.Command == nil {
		return invalidf("'ExecutorInfo.command' must be set for 'CUSTOM' executor")
	}
	if e.FrameworkID == nil {
		return invalidf("'ExecutorInfo.framework_id' must be set")
	}
	if e.GetShutdownGracePeriod().GetNanoseconds() < 0 {
		return invalidf("ExecutorInfo's 'shutdown_grace_period' must be non-negative")
	}
	if err := Resources(e.Resources); err != nil {
		return invalidf("Executor uses invalid resources: %v", err)
	}
	if len(e.Resources) > 0 {
		if err := singleRole(e.Resources); err != nil {
			return invalidf("Invalid executor resources: %v", err)
		}
	}
	if e.Container != nil {
		if err := container(e.Container); err != nil {
			return invalidf("Executor's `ContainerInfo` is invalid: %v", err)
		}
	}
	if was := c.Executor(e.ExecutorID.Value); was != nil && !was.Equal(e) {
		return invalidf("ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID")
	}
	return nil
}

// Group checks a LAUNCH_GROUP operation.
func Group(tasks []mesos.TaskInfo, e *mesos.ExecutorInfo, c TaskContext) error {
	seen := map[string]bool{}
	total := resource.List{}
	for i := range tasks {
		t := &tasks[i]
		err := task(t, c)
		switch {
		case err != nil:
		case seen[t.TaskID.Value]:
			err = invalidf("Task has duplicate ID: %s", t.TaskID.Value)
		case t.Executor == nil:
			err = invalidf("'TaskInfo.executor' must be set")
		case isDocker(t.Container):
			err = invalidf("Docker ContainerInfo is not supported on the task")
		}
		if err != nil {
			return invalidf("Task '%s' is invalid: %v", t.TaskID.Value, err)
		}
		seen[t.TaskID.Value] = true
		total = resource.Add(total, t.Resources...)
	}
	if err := groupExecutor(e, c); err != nil {
		return err
	}
	if c.Executor(e.ExecutorID.Value) == nil {
		total = resource.Add(total, e.Resources...)
	}
	if err := uniquePersistence(total); err != nil {
		return invalidf("Task group and executor use duplicate persistence ID: %v", err)
	}
	if !resource.Contains(c.Offered, total) {
		return invalidf("Total resources %s required by task group and its executor are more than available %s",
			resource.Format(total), resource.Format(c.Offered))
	}
	return nil
}

func groupExecutor(e *mesos.ExecutorInfo, c TaskContext) error {
	if err := executor(e, c); err != nil {
		return err
	}
	id := e.ExecutorID.Value
	cpus, mem := resource.Sum(e.Resources, "cpus"), resource.Sum(e.Resources, "mem")
	switch {
	case e.Type == mesos.ExecutorInfo_UNKNOWN:
		return invalidf("'ExecutorInfo.type' must be set")
	case isDocker(e.Container):
		return invalidf("Docker ContainerInfo is not supported on the executor")
	case !resource.Has(e.Resources, "cpus"):
		return invalidf("Executor '%s' uses less CPUs (None) than the minimum required (0.01)", id)
	case cpus < minCPUs:
		return invalidf("Executor '%s' uses less CPUs (%v) than the minimum required (0.01)", id, cpus)
	case !resource.Has(e.Resources, "mem"):
		return invalidf("Executor '%s' uses less memory (None) than the minimum required (32MB)", id)
	case mem < minMem:
		return invalidf("Executor '%s' uses less memory (%vMB) than the minimum required (32MB)", id, mem)
	case !resource.Has(e.Resources, "disk"):
		return invalidf("Executor '%s' uses no disk", id)
	}
	return nil
}

// isDocker is careful about mesos-go's GetType, which says DOCKER of no container at all.
func isDocker(c *mesos.ContainerInfo) bool {
	return c != nil && c.GetType() == mesos.ContainerInfo_DOCKER
}

// overlap says whether two lists name the same ports or set items.
func overlap(a, b resource.List) bool {
	for i := range a {
		for j := range b {
			x, y := &a[i], &b[j]
			if x.Name != y.Name || x.GetType() != mesos.RANGES || y.GetType() != mesos.RANGES {
				continue
			}
			for _, p := range x.GetRanges().GetRange() {
				for _, q := range y.GetRanges().GetRange() {
					if p.Begin <= q.End && q.Begin <= p.End {
						return true
					}
				}
			}
		}
	}
	return false
}
