package marathon

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// Unsupported refuses, with paths, what is valid but what this version cannot run. Nothing is silently left out: an app
// that gets past this runs as it says.
func (a *App) Unsupported() error {
	p := &document.Problems{}
	no := func(path, text string) { p.Add(path, text+" not supported by this version of Holdfast") }
	a.unsupportedContainer(no)
	a.unsupportedChecks(no)
	if definition.Or(a.GPUs, 0) > 0 {
		no("/gpus", "GPUs are")
	}
	if e := definition.Or(a.Executor, ""); e != "" && e != "//cmd" {
		no("/executor", "custom executors are")
	}
	if a.ExecutorResources != nil {
		no("/executorResources", "executorResources are")
	}
	if a.ResourceLimits != nil {
		no("/resourceLimits", "resource limits are")
	}
	if definition.Or(a.TTY, false) && a.Container != nil && a.ContainerType() == definition.TypeDocker {
		no("/tty", "terminals (tty) of DOCKER containers are")
	}
	return p.Err(messageRules)
}

func (a *App) unsupportedContainer(no func(path, text string)) {
	if len(a.Networks) > 1 {
		no("/networks", "several container networks in one app are")
	}
	c := a.Container
	if c == nil {
		return
	}
	if c.LinuxInfo != nil && c.LinuxInfo.IPC != nil {
		no("/container/linuxInfo/ipcInfo", "IPC settings are")
	}
	if c.LinuxInfo != nil && a.ContainerType() == definition.TypeDocker {
		no("/container/linuxInfo", "seccomp settings of DOCKER containers are")
	}
	if c.Docker != nil && c.Docker.PullSecret != nil && a.ContainerType() == definition.TypeDocker {
		no("/container/docker/pullConfig", "secrets of DOCKER containers are")
	}
	for i, v := range c.Volumes {
		at := fmt.Sprintf("/container/volumes(%d)", i)
		switch {
		case v.Secret != nil && a.ContainerType() == definition.TypeDocker:
			no(at+"/secret", "secrets in files of DOCKER containers are")
		case v.External != nil && v.External.CSI != nil:
			unsupportedCSI(at+"/external/options", v.External.CSI, no)
		case v.External != nil && v.External.Clone != nil:
			no(at+"/external/clone", "clones of volumes in use are (take a snapshot, and name it: external.snapshot)")
		}
	}
}

func unsupportedCSI(at string, c *definition.CSI, no func(path, text string)) {
	if c.AccessType == "block" {
		no(at+"/capability/accessType", "block devices as volumes are")
	}
	if len(c.NodeStageSecret) > 0 {
		no(at+"/nodeStageSecret", "secrets in apps are (give them to the plugin with --csi NAME=…,secrets=DIR)")
	}
	if len(c.NodePublishSecret) > 0 {
		no(at+"/nodePublishSecret", "secrets in apps are (give them to the plugin with --csi NAME=…,secrets=DIR)")
	}
	if len(c.VolumeContext) > 0 {
		no(at+"/volumeContext", "a volume's context in apps is")
	}
}

func (a *App) unsupportedChecks(no func(path, text string)) {
	if a.Check != nil {
		no("/check", "general checks are")
	}
	for i, h := range a.HealthChecks {
		if definition.Or(h.IPProtocol, "IPv4") == "IPv6" {
			no(fmt.Sprintf("/healthChecks(%d)/ipProtocol", i), "health checks over IPv6 are")
		}
	}
}

// Notes are warnings about what is kept and printed but decides nothing in this version.
func (a *App) Notes() []string {
	var out []string
	if a.Residency != nil && !a.Resident() {
		out = append(out, "residency without a local persistent volume: cpus, mem, disk and ports are reserved for each instance, which keeps it on its agent")
	}
	if *a.KillSelection == "OLDEST_FIRST" {
		out = append(out, "killSelection decides nothing: scaling down always takes the highest instance numbers")
	}
	return out
}

// volumeWarnings are about options that no driver will see, and paths that a bare task may not find.
func volumeWarnings(i int, v definition.Volume, image bool) []string {
	var out []string
	if v.External == nil {
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(v.External.Options)) {
		if !strings.HasPrefix(k, "dvdi/") {
			out = append(out, fmt.Sprintf("/container/volumes(%d)/external/options: %q is not passed on, only options that begin with dvdi/ are", i, definition.Short(k)))
		}
	}
	if !image && strings.HasPrefix(v.ContainerPath, "/") {
		out = append(out, fmt.Sprintf("/container/volumes(%d)/containerPath: without an image the absolute path %s must exist on the agent; a relative one is made in the sandbox", i, definition.Short(v.ContainerPath)))
	}
	return out
}
