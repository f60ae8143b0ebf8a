package definition

// App is an app definition. A nil pointer, slice or map is a field that was not given; an empty slice or map was
// given empty. After Read every field that has a default is set.
type App struct {
	ID                         string
	AcceptedResourceRoles      []string
	Args                       []string
	BackoffFactor              *float64
	BackoffSeconds             *int
	Cmd                        *string
	Constraints                [][]string
	Container                  *Container
	CPUs                       *float64
	Dependencies               []string
	Disk                       *float64
	Env                        map[string]EnvValue
	Executor                   *string
	ExecutorResources          *ExecutorResources
	Fetch                      []Fetch
	GPUs                       *int
	HealthChecks               []HealthCheck
	Check                      *Check
	Instances                  *int
	Labels                     map[string]string
	MaxLaunchDelaySeconds      *int
	Mem                        *float64
	Networks                   []Network
	PortDefinitions            []PortDefinition
	ReadinessChecks            []ReadinessCheck
	Residency                  *Residency
	RequirePorts               *bool
	ResourceLimits             *ResourceLimits
	Role                       *string
	Secrets                    map[string]string // name to source
	TaskKillGracePeriodSeconds *int
	TTY                        *bool
	UpgradeStrategy            *UpgradeStrategy
	User                       *string
	KillSelection              *string
	UnreachableStrategy        *UnreachableStrategy
	// Unprotected (ours): exclusive volumes may be used on agents without an isolator; they then stay on that agent.
	Unprotected *bool
	// Order (ours) is serial or parallel: how instances are started, updated and stopped. Partition is the lowest number that gets a new
	// version. MinInstances stay up and at most MaxInstances run, whatever is updated or drained.
	Order        *string
	Partition    *int
	MinInstances *int
	MaxInstances *int
	// DrainSeconds (ours) is how long an instance is out of service discovery before the signal that ends it is sent.
	DrainSeconds *int
	// Primary (ours): one of the instances is the primary.
	Primary *bool

	// Version as given: Read ignores it, an update may roll back to it.
	Version *string

	// The forms of older versions; after migration they are empty.
	OldPorts     []int
	OldURIs      []string
	OldIPAddress *IPAddress
}

// EnvValue is the value of an environment variable: a text, or the name of a secret.
type EnvValue struct {
	Text     string
	Secret   string
	IsSecret bool
}

// Container says how a task is contained.
type Container struct {
	Type         *string // DOCKER (the default), MESOS
	Docker       *Docker
	Volumes      []Volume
	PortMappings []PortMapping
	LinuxInfo    *LinuxInfo
}

// Docker is an image and how it runs.
type Docker struct {
	Image          *string
	ForcePullImage *bool
	Privileged     *bool
	Parameters     []Parameter
	PullSecret     *string // pullConfig.secret

	OldNetwork      *string
	OldPortMappings []PortMapping
	HasCredential   bool
}

// Parameter is an argument of docker run.
type Parameter struct{ Key, Value string }

// LinuxInfo is what the Mesos containerizer can do with seccomp and IPC.
type LinuxInfo struct {
	Seccomp *Seccomp
	IPC     *IPC
}

// Seccomp picks a profile.
type Seccomp struct {
	ProfileName *string
	Unconfined  *bool
}

// IPC is the IPC namespace of a container.
type IPC struct {
	Mode    string // PRIVATE, SHARE_PARENT
	ShmSize *int
}

// Volume is one of four: exactly one of Persistent, External, Secret and HostPath is set.
type Volume struct {
	ContainerPath string
	Mode          string // RO, RW; "" for secrets
	Persistent    *Persistent
	External      *External
	Secret        *string
	HostPath      *string
}

// Persistent is a Mesos local persistent volume.
type Persistent struct {
	Type        *string // root, path, mount
	Size        int     // MiB
	MaxSize     *int
	ProfileName *string
	Constraints [][]string
}

// External is a volume of a volume driver.
type External struct {
	Name     *string
	Provider *string
	// Size as given: digits for a number of GiB, or (ours) with a unit. "" when not given.
	Size string
	// SizeText: the size was a JSON string.
	SizeText bool
	Options  map[string]string
	Shared   *bool
	// Class (ours) is an operator's recipe; FromClass what it says, once it was looked up. It is not printed.
	Class     *string
	FromClass *Class
	// AccessMode (ours) is how many may use one volume: a CSI name.
	AccessMode *string
	// Encrypt (ours) asks the driver for encryption.
	Encrypt *bool
	// Snapshot and Clone (ours) are what a new volume begins as a copy of.
	Snapshot *SnapshotSource
	Clone    *string
	// Retain (ours) says what becomes of volumes that their app does not use any more.
	Retain *Retain
	// CSI holds options of provider csi, as given.
	CSI *CSI
}

// Class is what an operator's class says, as far as it concerns an app.
type Class struct {
	Name, Driver, Policy string
	Options              map[string]string
	Size                 int64 // bytes
	Zones                []string
	Delete, Encrypt      bool
}

// SnapshotSource is a snapshot of a volume. The volume's name may hold {ordinal}.
type SnapshotSource struct{ Volume, Name string }

// Retain is "keep" (the default) or "delete" for when an app gets smaller, and for when it is deleted.
type Retain struct{ OnScaleDown, OnDelete *string }

// CSI is the options object of an external volume of provider csi.
type CSI struct {
	PluginName        string
	AccessMode        string
	AccessType        string
	FSType            *string
	MountFlags        []string
	NodeStageSecret   map[string]string
	NodePublishSecret map[string]string
	VolumeContext     map[string]string
}

// PortMapping maps a port of a container network.
type PortMapping struct {
	ContainerPort *int
	HostPort      *int
	ServicePort   *int
	Protocol      *string
	Name          *string
	Labels        map[string]string
	NetworkNames  []string
}

// PortDefinition is a port on the host network.
type PortDefinition struct {
	Port     *int
	Name     *string
	Protocol *string
	Labels   map[string]string
}

// Network is a network a container joins.
type Network struct {
	Mode   *string // container (default), container/bridge, host
	Name   *string
	Labels map[string]string
}

// Fetch is a URI for Mesos's fetcher.
type Fetch struct {
	URI        string
	Extract    *bool
	Executable *bool
	Cache      *bool
	DestPath   *string
}

// ExecutorResources is what a custom executor uses.
type ExecutorResources struct{ CPUs, Mem, Disk *float64 }

// ResourceLimits are upper bounds; a nil number with Unlimited means "unlimited".
type ResourceLimits struct{ CPUs, Mem *Limit }

// Limit is one bound.
type Limit struct {
	Unlimited bool
	Value     float64
}

// HealthCheck is one health check.
type HealthCheck struct {
	Protocol               *string
	Path                   *string
	Port                   *int
	PortIndex              *int
	Command                *string
	GracePeriodSeconds     *int
	IntervalSeconds        *int
	TimeoutSeconds         *int
	DelaySeconds           *int
	MaxConsecutiveFailures *int
	IgnoreHTTP1xx          *bool
	IPProtocol             *string
}

// Check is Mesos's general check.
type Check struct {
	Kind            string // http, tcp, exec; "" when none was given
	PortIndex       *int
	Port            *int
	Path            *string
	Scheme          *string
	Command         *string
	IntervalSeconds *int
	TimeoutSeconds  *int
	DelaySeconds    *int
}

// ReadinessCheck tells when a task of a new version may take over.
type ReadinessCheck struct {
	Name                 *string
	Protocol             *string
	Path                 *string
	PortName             *string
	IntervalSeconds      *int
	TimeoutSeconds       *int
	ReadyCodes           []int
	PreserveLastResponse *bool
}

// Residency says what happens when the agent that has an instance's local volumes is lost.
type Residency struct {
	RelaunchEscalationTimeoutSeconds *int
	TaskLostBehavior                 *string
}

// UpgradeStrategy bounds a rolling update.
type UpgradeStrategy struct{ MaximumOverCapacity, MinimumHealthCapacity float64 }

// UnreachableStrategy says when a lost task is replaced and forgotten.
type UnreachableStrategy struct {
	Disabled             bool
	InactiveAfterSeconds int
	ExpungeAfterSeconds  int
}

// IPAddress is the older form of a container network. Groups are read and mean nothing.
type IPAddress struct {
	NetworkName *string
	Labels      map[string]string
	Groups      []string
	Discovery   []PortMapping // nil: no discovery
	HasPorts    bool
}

// The values of App.Order.
const (
	OrderSerial   = "serial"
	OrderParallel = "parallel"
)

// Ptr gives a pointer to a value.
func Ptr[T any](v T) *T { return &v }

// Or gives what p points to, or fallback.
func Or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

// The container types and network modes.
const (
	TypeDocker       = "DOCKER"
	TypeMesos        = "MESOS"
	NetworkHost      = "host"
	NetworkBridge    = "container/bridge"
	NetworkContainer = "container"
)

// HostNetwork tells whether the app runs on the host's network.
func (a *App) HostNetwork() bool {
	for _, n := range a.Networks {
		if Or(n.Mode, NetworkContainer) != NetworkHost {
			return false
		}
	}
	return true
}

// Bridge tells whether the app runs on the bridge network.
func (a *App) Bridge() bool {
	for _, n := range a.Networks {
		if Or(n.Mode, NetworkContainer) == NetworkBridge {
			return true
		}
	}
	return false
}

// Volumes are those of the container, if there is one.
func (a *App) Volumes() []Volume {
	if a.Container == nil {
		return nil
	}
	return a.Container.Volumes
}

// Resident tells whether the app has local persistent volumes.
func (a *App) Resident() bool {
	for _, v := range a.Volumes() {
		if v.Persistent != nil {
			return true
		}
	}
	return false
}

// HasExternal tells whether the app has external volumes.
func (a *App) HasExternal() bool {
	for _, v := range a.Volumes() {
		if v.External != nil {
			return true
		}
	}
	return false
}

// ContainerType is DOCKER when none was given; "" without a container.
func (a *App) ContainerType() string {
	if a.Container == nil {
		return ""
	}
	return Or(a.Container.Type, TypeDocker)
}

// Image is the container's image, "" for none.
func (a *App) Image() string {
	if a.Container == nil || a.Container.Docker == nil {
		return ""
	}
	return Or(a.Container.Docker.Image, "")
}

// Docker is the container's docker part, nil for none.
func (a *App) Docker() *Docker {
	if a.Container == nil {
		return nil
	}
	return a.Container.Docker
}

// OverHTTP tells whether a check asks for a page.
func (h *HealthCheck) OverHTTP() bool {
	switch Or(h.Protocol, "HTTP") {
	case "HTTP", "HTTPS", "MESOS_HTTP", "MESOS_HTTPS":
		return true
	}
	return false
}

// ByMesos tells whether Marathon leaves this check to Mesos.
func (h *HealthCheck) ByMesos() bool {
	switch Or(h.Protocol, "HTTP") {
	case "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP":
		return true
	}
	return false
}
