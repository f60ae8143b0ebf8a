// Package pod is Marathon's pod definition: several containers that are placed, run and end together. What a pod has in common with an app
// (scheduling, networks, external volumes) goes through the rules of an app, see companion; the rest is here. Data to data, no I/O.
package pod

import (
	"encoding/json"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// Pod is a pod definition with every default filled in. Its JSON is what is stored, in Marathon's order.
type Pod struct {
	ID                string            `json:"id"`
	Labels            map[string]string `json:"labels,omitempty"`
	Version           string            `json:"version,omitempty"`
	User              string            `json:"user,omitempty"`
	Environment       map[string]string `json:"environment,omitempty"`
	Containers        []Container       `json:"containers"`
	Volumes           []Volume          `json:"volumes,omitempty"`
	Networks          []Network         `json:"networks"`
	Scaling           Scaling           `json:"scaling"`
	Scheduling        Scheduling        `json:"scheduling"`
	ExecutorResources Resources         `json:"executorResources"`
	Role              string            `json:"role,omitempty"`

	app *marathon.App
}

// Container is one container of a pod.
type Container struct {
	Name         string            `json:"name"`
	User         string            `json:"user,omitempty"`
	Exec         *Exec             `json:"exec,omitempty"`
	Resources    Resources         `json:"resources"`
	Endpoints    []Endpoint        `json:"endpoints,omitempty"`
	Image        *Image            `json:"image,omitempty"`
	Environment  map[string]string `json:"environment,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	HealthCheck  *HealthCheck      `json:"healthCheck,omitempty"`
	VolumeMounts []VolumeMount     `json:"volumeMounts,omitempty"`
	Artifacts    []Artifact        `json:"artifacts,omitempty"`
	Lifecycle    *Lifecycle        `json:"lifecycle,omitempty"`
}

// Exec is the command of a container.
type Exec struct {
	Command            Command `json:"command"`
	OverrideEntrypoint *bool   `json:"overrideEntrypoint,omitempty"`
}

// Command is either a line for a shell or an argument list.
type Command struct {
	Shell string   `json:"shell,omitempty"`
	Argv  []string `json:"argv,omitempty"`
}

// Resources of a container, MiB for mem and disk.
type Resources struct {
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
	GPUs int     `json:"gpus"`
}

// Endpoint is a port that a container serves.
type Endpoint struct {
	Name          string            `json:"name"`
	ContainerPort *int              `json:"containerPort,omitempty"`
	HostPort      *int              `json:"hostPort,omitempty"`
	Protocol      []string          `json:"protocol,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
}

// Image is a container image; Kind is always DOCKER.
type Image struct {
	Kind      string `json:"kind"`
	ID        string `json:"id"`
	ForcePull *bool  `json:"forcePull,omitempty"`
}

// HealthCheck has one of HTTP, TCP and Exec.
type HealthCheck struct {
	HTTP                   *HTTPCheck `json:"http,omitempty"`
	TCP                    *TCPCheck  `json:"tcp,omitempty"`
	Exec                   *ExecCheck `json:"exec,omitempty"`
	GracePeriodSeconds     int        `json:"gracePeriodSeconds"`
	IntervalSeconds        int        `json:"intervalSeconds"`
	MaxConsecutiveFailures int        `json:"maxConsecutiveFailures"`
	TimeoutSeconds         int        `json:"timeoutSeconds"`
	DelaySeconds           int        `json:"delaySeconds"`
}

// HTTPCheck asks an endpoint.
type HTTPCheck struct {
	Endpoint string `json:"endpoint"`
	Path     string `json:"path,omitempty"`
	Scheme   string `json:"scheme,omitempty"` // HTTP, HTTPS
}

// TCPCheck connects to an endpoint.
type TCPCheck struct {
	Endpoint string `json:"endpoint"`
}

// ExecCheck runs a command.
type ExecCheck struct {
	Command Command `json:"command"`
}

// VolumeMount is where a container sees a volume of its pod.
type VolumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	ReadOnly  *bool  `json:"readOnly,omitempty"`
}

// Artifact is what Mesos fetches into a container's sandbox.
type Artifact struct {
	URI        string `json:"uri"`
	Extract    bool   `json:"extract"`
	Executable bool   `json:"executable"`
	Cache      bool   `json:"cache"`
	DestPath   string `json:"destPath,omitempty"`
}

// Lifecycle says how a container ends.
type Lifecycle struct {
	KillGracePeriodSeconds float64 `json:"killGracePeriodSeconds"`
}

// Volume is a directory that a run's containers share, one of the host, or (ours) an external volume, as in an app.
type Volume struct {
	Name     string          `json:"name"`
	Host     string          `json:"host,omitempty"`
	External json.RawMessage `json:"external,omitempty"`
}

// Network is what all containers of a pod share.
type Network struct {
	Name   string            `json:"name,omitempty"`
	Mode   string            `json:"mode"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Scaling is how many instances there are to be. Kind is "fixed".
type Scaling struct {
	Kind      string `json:"kind"`
	Instances int    `json:"instances"`
}

// Scheduling is when and where instances start. It is kept as given, with the defaults of an app.
type Scheduling struct {
	Backoff             Backoff         `json:"backoff"`
	Upgrade             Upgrade         `json:"upgrade"`
	Placement           Placement       `json:"placement"`
	KillSelection       string          `json:"killSelection"`
	UnreachableStrategy json.RawMessage `json:"unreachableStrategy"`
}

// Backoff in seconds.
type Backoff struct {
	Backoff        int     `json:"backoff"`
	BackoffFactor  float64 `json:"backoffFactor"`
	MaxLaunchDelay int     `json:"maxLaunchDelay"`
}

// Upgrade bounds an update.
type Upgrade struct {
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity"`
	MaximumOverCapacity   float64 `json:"maximumOverCapacity"`
}

// Placement says where.
type Placement struct {
	Constraints           []Constraint `json:"constraints"`
	AcceptedResourceRoles []string     `json:"acceptedResourceRoles"`
}

// Constraint is one of Placement.
type Constraint struct {
	FieldName string  `json:"fieldName"`
	Operator  string  `json:"operator"`
	Value     *string `json:"value,omitempty"`
}

// JSON is the definition as it is stored, without version.
func (p *Pod) JSON() []byte {
	c := *p
	c.Version = ""
	return document.Marshal(c)
}

// Print gives a stored definition with its version, and with the instances that are wanted now.
func Print(source []byte, version string, instances int) ([]byte, error) {
	p := &Pod{}
	if err := json.Unmarshal(source, p); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read a stored pod definition")
	}
	p.Version, p.Scaling.Instances = version, instances
	return document.Marshal(p), nil
}

// SameBut tells whether a stored definition differs from this one in nothing but the number of instances.
func (p *Pod) SameBut(source []byte) bool {
	old, err := Print(source, "", 0)
	c := *p
	c.Version, c.Scaling.Instances = "", 0
	return err == nil && string(old) == string(document.Marshal(c))
}
