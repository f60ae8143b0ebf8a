package state

import (
	"strings"
	"time"
)

// Pod tells whether the definition is a pod: several containers that are launched, run and end together, under one executor.
func (s *Spec) Pod() bool { return len(s.Containers) > 0 }

// PodContainer is one container of a pod. Spec.CPUs, MemMB and DiskMB are the sums over the containers and the executor.
type PodContainer struct {
	Name      string            `json:"name"`
	CPUs      float64           `json:"cpus"`
	MemMB     float64           `json:"mem"`
	DiskMB    float64           `json:"disk,omitempty"`
	Cmd       string            `json:"cmd,omitempty"`
	Args      []string          `json:"args,omitempty"`
	User      string            `json:"user,omitempty"`
	Image     string            `json:"image,omitempty"`
	ForcePull bool              `json:"forcePull,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Fetch     []Fetch           `json:"fetch,omitempty"`
	// Ports are the container's endpoints, as indexes into Spec.Ports.
	Ports []int `json:"ports,omitempty"`
	// Health is its health check, which Mesos runs; a PortIndex counts Spec.Ports.
	Health    *HealthCheck  `json:"health,omitempty"`
	Mounts    []PodMount    `json:"mounts,omitempty"`
	KillGrace time.Duration `json:"killGrace,omitempty"`
}

// PodMount is where a container sees a volume of its pod. Volume is the ContainerPath of one of Spec.Volumes, or, where Shared, the name
// of a directory that the containers of one run share and that goes with the run.
type PodMount struct {
	Volume   string `json:"volume"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Shared   bool   `json:"shared,omitempty"`
}

// PodExecutor is what a pod's executor takes beside its containers.
type PodExecutor struct {
	CPUs   float64 `json:"cpus"`
	MemMB  float64 `json:"mem"`
	DiskMB float64 `json:"disk"`
}

// ContainerRun is what is known of one container of a run of a pod.
type ContainerRun struct {
	Name        string    `json:"name"`
	MesosState  string    `json:"mesosState,omitempty"` // TASK_…, "" before the first status
	Reason      string    `json:"reason,omitempty"`
	Message     string    `json:"message,omitempty"`
	Healthy     *bool     `json:"healthy,omitempty"`
	ContainerIP string    `json:"containerIp,omitempty"`
	Since       time.Time `json:"since,omitzero"` // of MesosState
}

// Container is the Mesos task of a container of a pod's run: `<run>.<container>`.
func (t TaskID) Container(name string) TaskID { return t + "." + TaskID(name) }

// SplitContainer takes the task id of a pod's container apart. ok is false for any other task: names of containers hold no dot.
func SplitContainer(t TaskID) (run TaskID, container string, ok bool) {
	if _, _, whole := ParseTaskID(t); whole {
		return "", "", false
	}
	dot := strings.LastIndexByte(string(t), '.')
	if dot < 0 || dot == len(t)-1 {
		return "", "", false
	}
	run, container = t[:dot], string(t[dot+1:])
	if _, _, ok = ParseTaskID(run); !ok || strings.Trim(string(run[len(run)-6:]), "0123456789abcdef") != "" {
		return "", "", false
	}
	return run, container, true
}
