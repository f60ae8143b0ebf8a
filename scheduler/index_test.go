package scheduler

import (
	"fmt"
	"reflect"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// checkIndex compares the indexes of a state with those of one that was built from its records alone.
func checkIndex(s *state.State) {
	n := durable(s)
	differ := func(what string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			panic(brokenPromise(fmt.Sprintf("index of %s: %v, built anew %v", what, a, b)))
		}
	}
	for id := range s.Apps {
		differ("instances of "+string(id), s.InstancesOf(id), n.InstancesOf(id))
		differ("counts of "+string(id), s.StatsOf(id), n.StatsOf(id))
	}
	differ("waiting", s.WaitingCount(), n.WaitingCount())
	differ("preparing", s.PreparingCount(), n.PreparingCount())
	for id, i := range s.Instances {
		if i.Run != nil {
			differ("task "+string(i.Run.Task), s.InstanceByTask(i.Run.Task), n.InstanceByTask(i.Run.Task))
			differ("agent "+string(i.Run.Agent), s.InstancesOn(i.Run.Agent), n.InstancesOn(i.Run.Agent))
		}
		differ("volumes of "+string(id), s.VolumesOfInstance(id), n.VolumesOfInstance(id))
	}
}
