// Package state is the vocabulary of the scheduler: apps, instances, volumes, claims, deployments, agents and nodes, their
// ids, and the one State that holds them all with its indexes. It is a leaf: plain data, no I/O, no clock. A State changes only by
// Apply of Writes; who reads it concurrently holds the framework's read lock and changes nothing.
package state

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// AppID is an absolute Marathon path, "/prod/db".
type AppID string

// Safe gives the id with slashes as underscores, "prod_db": the form in task and instance ids.
func (a AppID) Safe() string { return strings.ReplaceAll(strings.Trim(string(a), "/"), "/", "_") }

// InstanceID names a numbered member of an app, "prod_db.2". It never changes over its relaunches.
type InstanceID string

// TaskID is the Mesos task id of one run of an instance: `<safe app>.<ordinal>.<incarnation>-<6 hex>`.
type TaskID string

// DeploymentID is a UUID.
type DeploymentID string

// VolumeUID is a UUIDv7, new at every creation.
type VolumeUID string

// NodeUID is minted at an isolator's first start.
type NodeUID string

// AgentID is Mesos's id of an agent.
type AgentID string

// NewInstanceID builds an instance id.
func NewInstanceID(app AppID, ordinal int) InstanceID {
	return InstanceID(fmt.Sprintf("%s.%d", app.Safe(), ordinal))
}

// NewTaskID builds a task id; suffix is six hex digits.
func NewTaskID(id InstanceID, incarnation uint64, suffix string) TaskID {
	return TaskID(fmt.Sprintf("%s.%d-%s", id, incarnation, suffix))
}

// ParseTaskID reads a task id from the right, because a safe app id may hold dots. ok is false for a task that is not ours by shape.
func ParseTaskID(t TaskID) (id InstanceID, incarnation uint64, ok bool) {
	s := string(t)
	dash := strings.LastIndexByte(s, '-')
	if dash < 0 || len(s)-dash-1 != 6 {
		return "", 0, false
	}
	dot := strings.LastIndexByte(s[:dash], '.')
	if dot < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(s[dot+1:dash], 10, 64)
	if err != nil {
		return "", 0, false
	}
	id = InstanceID(s[:dot])
	if _, _, ok := id.Split(); !ok {
		return "", 0, false
	}
	return id, n, true
}

// Split gives the safe app id and the ordinal.
func (i InstanceID) Split() (safe string, ordinal int, ok bool) {
	dot := strings.LastIndexByte(string(i), '.')
	if dot <= 0 {
		return "", 0, false
	}
	n, err := strconv.Atoi(string(i[dot+1:]))
	if err != nil || n < 0 {
		return "", 0, false
	}
	return string(i[:dot]), n, true
}

// App is the record apps/<id>: which definition is wanted, and how many instances of it. A change to many instances is one
// write here.
type App struct {
	ID      AppID  `json:"id"`
	Version string `json:"version"` // the definition wanted: key of a Def
	// First is the version that it was created with, which may not be kept any more; "" in records of earlier programs.
	First string `json:"first,omitempty"`
	// Instances is how many are wanted: ordinals 0 to Instances-1.
	Instances int `json:"instances"`
	// Removed says that the app is being deleted: its instances stop, then the record goes. Volumes stay unless Wipe.
	Removed bool `json:"removed,omitempty"`
	Wipe    bool `json:"wipe,omitempty"`
	// Dispose says that it was deleted on request, so that the volumes that its definition gives no longer life go with it.
	Dispose bool `json:"dispose,omitempty"`
	// Restart grows with each restart order: instances whose RestartSeen is lower are restarted.
	Restart uint64 `json:"restart,omitempty"`
	// Deployment under way, "" for none.
	Deployment DeploymentID `json:"deployment,omitempty"`
	// Base is the definition of the instances below Rollout.Partition; "" while all have Version.
	Base string `json:"base,omitempty"`
	// Alike are older definitions that instances still have and that run just as Version (or Base) does: no instance is restarted for
	// what only says how the app is changed.
	Alike []string `json:"alike,omitempty"`
	// Skip are numbers that are left out: their instances were killed and scaled away by name.
	Skip []int `json:"skip,omitempty"`
	// Primary is which of its instances is the primary; nil for an app that never asked for one.
	Primary *Primary `json:"primary,omitempty"`

	LastScalingAt      time.Time `json:"lastScalingAt"`
	LastConfigChangeAt time.Time `json:"lastConfigChangeAt"`
	// LastTaskFailure is what /v2/apps/{id} shows under that name; nil when none.
	LastTaskFailure *TaskFailure `json:"lastTaskFailure,omitempty"`
	Rev             uint64       `json:"rev"`
}

// Primary says which run is an app's primary (Spec.Primary).
type Primary struct {
	// Instance is the primary, also between two of its runs; "" for none yet.
	Instance InstanceID `json:"instance,omitempty"`
	Ordinal  int        `json:"ordinal,omitempty"`
	// Task is the run that was named last and may still take itself for the primary; no other is named before it is over. "" when there is none.
	Task TaskID `json:"task,omitempty"`
	// Named: it is the primary now. Otherwise it is on its way out, or not well.
	Named bool `json:"named,omitempty"`
	// Claimed: the run has claims, which say when it is over.
	Claimed bool `json:"claimed,omitempty"`
	// Blind: the framework that the run belongs to is over, so that no status tells of the run any more, and the master's "no such task" says
	// nothing. Its claims tell of its end, its own word, or that its whole agent was marked gone.
	Blind bool `json:"blind,omitempty"`
	// Yielded is the run that gave the part up; it is not chosen again.
	Yielded TaskID `json:"yielded,omitempty"`
	// Term grows each time that a run is named.
	Term  uint64    `json:"term"`
	Since time.Time `json:"since"`
}

// TaskFailure is the last failure of any of an app's tasks.
type TaskFailure struct {
	Instance InstanceID `json:"instance"`
	Task     TaskID     `json:"task"`
	State    string     `json:"state"` // TASK_FAILED, TASK_LOST …
	Message  string     `json:"message"`
	Host     string     `json:"host"`
	Agent    AgentID    `json:"agent"`
	At       time.Time  `json:"at"`
	Version  string     `json:"version"`
}

// Def is the record defs/<id>/<version>: one version of an app definition. It never changes.
type Def struct {
	App     AppID  `json:"app"`
	Version string `json:"version"` // RFC 3339 with milliseconds, UTC, as Marathon writes it
	Spec    Spec   `json:"spec"`
	// Source is the app as the API prints it (normalised Marathon JSON without version, tasks, counts).
	Source json.RawMessage `json:"source"`
}

// Spec is what the scheduler and the task encoder need of an app definition, all defaults filled in.
type Spec struct {
	Cmd         string            `json:"cmd,omitempty"`
	Args        []string          `json:"args,omitempty"`
	User        string            `json:"user,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	CPUs        float64           `json:"cpus"`
	MemMB       float64           `json:"mem"`
	DiskMB      float64           `json:"disk"`
	GPUs        int               `json:"gpus,omitempty"`
	Ports       []Port            `json:"ports,omitempty"`
	RequirePort bool              `json:"requirePorts,omitempty"`
	Fetch       []Fetch           `json:"fetch,omitempty"`
	Constraints []Constraint      `json:"constraints,omitempty"`
	// AcceptedRoles empty means both unreserved ("*") and the framework's role.
	AcceptedRoles []string `json:"acceptedResourceRoles,omitempty"`
	// Role is the role whose offers it uses, "" for the framework's first one.
	Role         string        `json:"role,omitempty"`
	Container    Container     `json:"container"`
	Volumes      []Mount       `json:"volumes,omitempty"`
	HealthChecks []HealthCheck `json:"healthChecks,omitempty"`
	// Dependencies are apps and groups that have their turn before this app in a deployment.
	Dependencies []AppID `json:"dependencies,omitempty"`
	// KillGrace 0 means Mesos's default.
	KillGrace time.Duration `json:"killGrace,omitempty"`
	// Drain is how long an instance is out of service discovery before it is killed; nil means Config.Drain.
	Drain       *time.Duration `json:"drain,omitempty"`
	Backoff     Backoff        `json:"backoff"`
	Upgrade     Upgrade        `json:"upgrade"`
	Unreachable Unreachable    `json:"unreachable"`
	// KillSelection is YOUNGEST_FIRST or OLDEST_FIRST. Scaling down always takes the highest ordinals; this decides nothing else yet.
	KillSelection string `json:"killSelection,omitempty"`
	Executor      string `json:"executor,omitempty"`
	// ReadinessChecks are asked by the framework once a task runs, until they pass.
	ReadinessChecks []ReadinessCheck `json:"readinessChecks,omitempty"`
	// Rollout is how the app is changed. No run depends on it.
	Rollout Rollout `json:"rollout,omitzero"`
	// Residency says that the instances' resources are reserved for them, and what happens when an agent with a volume is lost. nil for
	// apps without local volumes that do not ask for it.
	Residency *Residency `json:"residency,omitempty"`
	// Primary: one of its instances is the primary. No run depends on it.
	Primary bool `json:"primary,omitempty"`
	// Unprotected lets exclusive volumes be used on agents without an isolator; they then stay on that agent.
	Unprotected bool `json:"unprotected,omitempty"`
	// EnvSecrets are environment variables whose values an agent's secret resolver gives: name to source.
	EnvSecrets map[string]string `json:"envSecrets,omitempty"`
	// TTY gives the task a terminal.
	TTY bool `json:"tty,omitempty"`
	// Containers make it a pod: each is a task of its own in one task group, under an executor with PodExecutor's resources. Cmd, Args, User
	// and Container.Image are then empty.
	Containers  []PodContainer `json:"containers,omitempty"`
	PodExecutor *PodExecutor   `json:"podExecutor,omitempty"`
}

// Residency is Marathon's: what to do when the agent that has an instance's volumes is lost.
type Residency struct {
	// Relaunch (RELAUNCH_AFTER_TIMEOUT) starts the instance over elsewhere, with new volumes, when the agent was lost for Escalation.
	// Otherwise (WAIT_FOREVER) it waits.
	Relaunch   bool          `json:"relaunch,omitempty"`
	Escalation time.Duration `json:"escalation,omitempty"`
}

// Reserves tells whether the instances run on reserved resources.
func (s *Spec) Reserves() bool { return s.Residency != nil || s.Local() }

// Local tells whether an instance has local persistent volumes.
func (s *Spec) Local() bool {
	for i := range s.Volumes {
		if s.Volumes[i].Kind == MountPersistent {
			return true
		}
	}
	return false
}

// Exclusive tells whether an instance needs at least one volume that only one node may have mounted.
func (s *Spec) Exclusive() bool {
	for i := range s.Volumes {
		if k := s.Volumes[i].Kind; k == MountPersistent || k == MountExternal && !s.Volumes[i].Shared {
			return true
		}
	}
	return false
}

// Port is one host port an instance needs.
type Port struct {
	// Want is the port asked for, 0 for any. It is taken as wanted only when Spec.RequirePort; otherwise it is the service port.
	Want     int               `json:"want"`
	Name     string            `json:"name,omitempty"`
	Protocol string            `json:"protocol"` // tcp, udp, "udp,tcp"
	Labels   map[string]string `json:"labels,omitempty"`
	// ContainerPort is set for port mappings.
	ContainerPort int `json:"containerPort,omitempty"`
}

// Fetch is a URI for Mesos's fetcher.
type Fetch struct {
	URI        string `json:"uri"`
	Extract    bool   `json:"extract"`
	Executable bool   `json:"executable,omitempty"`
	Cache      bool   `json:"cache,omitempty"`
	DestPath   string `json:"destPath,omitempty"`
}

// Constraint is Marathon's [field, operator, value]. Operator is upper case: UNIQUE CLUSTER GROUP_BY LIKE UNLIKE MAX_PER IS.
type Constraint struct {
	Field    string `json:"field"`
	Operator string `json:"operator"`
	Value    string `json:"value,omitempty"`
	HasValue bool   `json:"hasValue,omitempty"`
}

// Container says how the task is contained.
type Container struct {
	// Type is "" (none), "MESOS" or "DOCKER".
	Type       string            `json:"type,omitempty"`
	Image      string            `json:"image,omitempty"`
	ForcePull  bool              `json:"forcePull,omitempty"`
	Privileged bool              `json:"privileged,omitempty"`
	Parameters []Pair            `json:"parameters,omitempty"`
	Network    string            `json:"network,omitempty"` // "" or "host", "container/bridge", "container"
	NetName    string            `json:"netName,omitempty"`
	NetLabels  map[string]string `json:"netLabels,omitempty"`
	// PullSecret is the source of the secret with Docker's config for pulling the image.
	PullSecret string   `json:"pullSecret,omitempty"`
	Seccomp    *Seccomp `json:"seccomp,omitempty"`
}

// Seccomp picks the profile of a container, or none.
type Seccomp struct {
	Profile    string `json:"profile,omitempty"`
	Unconfined bool   `json:"unconfined,omitempty"`
}

// Pair is a key and a value whose order matters.
type Pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// MountKind tells volumes apart.
type MountKind string

// The kinds of Mount.
const (
	MountExternal   MountKind = "external"
	MountPersistent MountKind = "persistent" // Mesos local persistent volume
	MountHost       MountKind = "host"
	MountSecret     MountKind = "secret" // a file that an agent's secret resolver writes
)

// Mount is one volume of an app: where it goes in the container, and what it is.
type Mount struct {
	Kind          MountKind `json:"kind"`
	ContainerPath string    `json:"containerPath"`
	ReadOnly      bool      `json:"readOnly,omitempty"`
	HostPath      string    `json:"hostPath,omitempty"`
	Secret        string    `json:"secret,omitempty"` // its source, for MountSecret
	// For external volumes: the driver, the name or its pattern (volume.NameFor), and how to create it.
	Driver  string            `json:"driver,omitempty"`
	Pattern string            `json:"pattern,omitempty"`
	Size    volume.Bytes      `json:"size,omitempty"` // 0: the driver's or class's default
	Options map[string]string `json:"options,omitempty"`
	// Encrypt says that the volume must be encrypted, by a driver that is known to do it. Options say so to the driver, too.
	Encrypt bool   `json:"encrypt,omitempty"`
	Shared  bool   `json:"shared,omitempty"`
	Class   string `json:"class,omitempty"`
	// Policy is how the claim may be freed when the node is lost: "lease", "storage", "operator"; "" means the cluster's default.
	Policy string `json:"policy,omitempty"`
	// From is what a new volume begins as a copy of; nil: empty.
	From *MountSource `json:"from,omitempty"`
	// DeleteOnScaleDown and DeleteOnRemove: the volume goes with its instance, or with its app. Otherwise it stays.
	DeleteOnScaleDown bool `json:"deleteOnScaleDown,omitempty"`
	DeleteOnRemove    bool `json:"deleteOnRemove,omitempty"`
	// Zones are where the class lets instances run; empty: anywhere.
	Zones []string `json:"zones,omitempty"`
	// For persistent volumes.
	SizeMB    int64  `json:"sizeMB,omitempty"`
	MaxSizeMB int64  `json:"maxSizeMB,omitempty"`
	DiskType  string `json:"diskType,omitempty"` // root, path, mount
	Profile   string `json:"profile,omitempty"`
	// DiskConstraints are on the attribute path of a disk: LIKE and UNLIKE.
	DiskConstraints []Constraint `json:"diskConstraints,omitempty"`
}

// Rollout says how an app's instances are started, changed and stopped.
type Rollout struct {
	// Serial: one after the other, in the order of their numbers, each up before the next; stopped and updated in the reverse order.
	Serial bool `json:"serial,omitempty"`
	// Partition is the lowest number that gets a new version; those below keep the one before.
	Partition int `json:"partition,omitempty"`
	// Min instances stay up and at most Max are run, whatever is updated or drained; 0 for no bound.
	Min int `json:"min,omitempty"`
	Max int `json:"max,omitempty"`
}

// ReadinessCheck asks a task over HTTP whether it is ready to serve.
type ReadinessCheck struct {
	Name     string        `json:"name"`
	Protocol string        `json:"protocol"` // HTTP, HTTPS
	Path     string        `json:"path"`
	Interval time.Duration `json:"interval"`
	Timeout  time.Duration `json:"timeout"`
	Codes    []int         `json:"codes"` // answers that mean ready
	// Keep: the last answer is kept and shown.
	Keep bool `json:"keep,omitempty"`
	// PortIndex is one of Spec.Ports; nil when the port has no host port, and is Port of the container's own address.
	PortIndex *int `json:"portIndex,omitempty"`
	Port      int  `json:"port,omitempty"`
}

// HealthCheck is one health check. HTTP, HTTPS and TCP are asked by the framework; COMMAND and MESOS_… by the task's executor.
type HealthCheck struct {
	// Protocol is Marathon's: HTTP HTTPS TCP COMMAND MESOS_HTTP MESOS_HTTPS MESOS_TCP.
	Protocol  string `json:"protocol"`
	Path      string `json:"path,omitempty"`
	PortIndex *int   `json:"portIndex,omitempty"`
	Port      int    `json:"port,omitempty"`
	Command   string `json:"command,omitempty"`

	Grace       time.Duration `json:"grace"`
	Interval    time.Duration `json:"interval"`
	Timeout     time.Duration `json:"timeout"`
	Delay       time.Duration `json:"delay"`
	MaxFailures int           `json:"maxFailures"`
	// Ignore1xx: an informational answer says nothing.
	Ignore1xx bool `json:"ignore1xx,omitempty"`
}

// Native tells whether Mesos runs the check, at the agent.
func (h *HealthCheck) Native() bool {
	switch h.Protocol {
	case "HTTP", "HTTPS", "TCP":
		return false
	}
	return true
}

// Checked tells whether an instance is up only once it is healthy.
func (s *Spec) Checked() bool {
	native, ours := s.Checks()
	return native || ours
}

// Checks tells which kinds of health checks there are: of Mesos, of the framework.
func (s *Spec) Checks() (native, ours bool) {
	for i := range s.HealthChecks {
		if s.HealthChecks[i].Native() {
			native = true
		} else {
			ours = true
		}
	}
	for i := range s.Containers {
		native = native || s.Containers[i].Health != nil
	}
	return native, ours
}

// Backoff is Marathon's launch delay: Base, times Factor for each failure in a row, at most Max.
type Backoff struct {
	Base   time.Duration `json:"base"`
	Factor float64       `json:"factor"`
	Max    time.Duration `json:"max"`
}

// Upgrade is Marathon's upgradeStrategy. An app with exclusive volumes always has MaxOver 0 in effect: an instance stops
// before its next run starts.
type Upgrade struct {
	MaxOver   float64 `json:"maximumOverCapacity"`
	MinHealth float64 `json:"minimumHealthCapacity"`
}

// Unreachable is Marathon's unreachableStrategy. For instances with exclusive volumes the claim decides, whatever this says.
type Unreachable struct {
	Disabled bool          `json:"disabled,omitempty"`
	Inactive time.Duration `json:"inactive"`
	Expunge  time.Duration `json:"expunge"`
}
