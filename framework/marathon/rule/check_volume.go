package rule

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/volume"
)

const (
	labelRule  = `^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$`
	optionRule = `^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?/[A-Za-z0-9](?:[-A-Za-z0-9\._:]*[A-Za-z0-9])?$`
	driverRule = `^[A-Za-z0-9](?:[-A-Za-z0-9\._:]*[A-Za-z0-9])?$`
)

var (
	labelShape  = regexp.MustCompile(labelRule)
	optionShape = regexp.MustCompile(optionRule)
	driverText  = regexp.MustCompile(driverRule)
)

// checkVolumes holds the rules on each volume as given.
func checkVolumes(p *document.Problems, a *definition.App, o Options) {
	docker := a.Container != nil && a.ContainerType() == definition.TypeDocker
	for i, v := range a.Volumes() {
		at := fmt.Sprintf("/container/volumes(%d)", i)
		checkContainerPath(p, at, v)
		switch {
		case v.Persistent != nil:
			checkPersistent(p, at, v)
		case v.External != nil:
			checkExternal(p, at, v)
			if definition.Or(a.Unprotected, false) && Encrypt(v.External) {
				p.Add(at+"/external/encrypt", "does not go with unprotected: on a node without isolator nobody sees to it that a driver encrypts")
			}
		case v.Secret != nil:
			if !hasSecret(a, *v.Secret) {
				p.Add(at+"/secret", "volume.secret must refer to an existing secret")
			}
		case v.HostPath != nil && docker && !strings.HasPrefix(*v.HostPath, "/") && !strings.HasPrefix(v.ContainerPath, "/"):
			p.Add(at, fmt.Sprintf("Both host_path '%s' and container_path '%s' of a volume are relative", definition.Short(*v.HostPath), definition.Short(v.ContainerPath)))
		}
		if v.HostPath != nil && hasDots(*v.HostPath) {
			p.Add(at+"/hostPath", "must not contain '..'")
		}
	}
	checkTargets(p, a)
}

// checkContainerPath: what Mesos would refuse or, worse, would mount outside of the container's own tree.
func checkContainerPath(p *document.Problems, at string, v definition.Volume) {
	at += "/containerPath"
	clean := path.Clean(v.ContainerPath)
	switch {
	case v.ContainerPath == "." || v.ContainerPath == "..":
		p.Add(at, "can not be one of (.,..)")
	case hasDots(v.ContainerPath):
		p.Add(at, "must not contain '..'")
	case clean == "/" || clean == ".":
		p.Add(at, "must name a place below the root")
	case v.External != nil && (clean == "stdout" || clean == "stderr"):
		p.Add(at, "is where Mesos keeps the task's output")
	case len(v.ContainerPath) > 1024 || strings.ContainsAny(v.ContainerPath, "\n\r\t:"):
		p.Add(at, "must be at most 1024 characters, without ':' and line breaks")
	}
}

func hasDots(p string) bool {
	for _, s := range strings.Split(p, "/") {
		if s == ".." {
			return true
		}
	}
	return false
}

// checkTargets: two volumes cannot be mounted at one place.
func checkTargets(p *document.Problems, a *definition.App) {
	seen := map[string]int{}
	for i, v := range a.Volumes() {
		clean := path.Clean(v.ContainerPath)
		if first, twice := seen[clean]; twice {
			p.Add(fmt.Sprintf("/container/volumes(%d)/containerPath", i), fmt.Sprintf("is the same as that of volumes(%d)", first))
			continue
		}
		seen[clean] = i
	}
}

func checkPersistent(p *document.Problems, at string, v definition.Volume) {
	s := v.Persistent
	if strings.Contains(v.ContainerPath, "/") {
		p.Add(at+"/containerPath", `value must not contain "/"`)
	}
	if v.Mode != "RW" {
		p.Add(at+"/mode", "does not equal RW")
	}
	at += "/persistent"
	kind := definition.Or(s.Type, "root")
	if s.Type == nil && s.ProfileName != nil {
		kind = "mount"
	}
	if s.Size == 0 {
		p.Add(at+"/size", "got 0, expected more than 0")
	}
	if kind == "root" && len(s.Constraints) > 0 {
		p.Add(at+"/constraints", "Constraints on root volumes are not supported")
	}
	if s.MaxSize != nil && kind != "mount" {
		p.Add(at+"/maxSize", "Only mount volumes can have maxSize")
	} else if s.MaxSize != nil && *s.MaxSize <= s.Size {
		p.Add(at+"/maxSize", "Max size must be larger than size")
	}
	if s.ProfileName != nil && *s.ProfileName == "" {
		p.Add(at+"/profileName", "must not be empty")
	}
	for i, c := range s.Constraints {
		if text := volumeConstraintFault(c); text != "" {
			p.Add(fmt.Sprintf("%s/constraints(%d)", at, i), text)
		}
	}
}

func volumeConstraintFault(c []string) string {
	switch {
	case len(c) == 0:
		return "Missing field and operator"
	case len(c) < 3 || c[0] != "path":
		return "Unsupported constraint " + definition.Short(strings.Join(c, ","))
	}
	switch c[1] {
	case "LIKE", "UNLIKE":
	case "UNIQUE", "CLUSTER", "GROUP_BY", "MAX_PER", "IS":
		return "Operator must be one of LIKE, UNLIKE"
	default:
		return "unknown constraint operator " + definition.Short(c[1])
	}
	if _, err := regexp.Compile(c[2]); err != nil {
		return "Invalid regular expression"
	}
	return ""
}

// checkExternal: what Marathon refuses because it could not pass it on is not refused here: size and options in DOCKER containers (the volume is
// made before the container), and mode RO.
func checkExternal(p *document.Problems, at string, v definition.Volume) {
	e := v.External
	ext := at + "/external"
	checkExtensions(p, at, v)
	switch {
	case e.Name == nil:
		p.Add(ext+"/name", "not defined")
	case *e.Name == "":
		p.Add(ext+"/name", "must not be empty")
	}
	switch {
	case e.Provider == nil:
		p.Add(ext+"/provider", "not defined")
		return
	case !labelShape.MatchString(*e.Provider):
		p.Add(ext+"/provider", "must match regular expression '"+labelRule+"'")
		return
	case *e.Provider == "csi":
		checkCSI(p, at, v)
		return
	case *e.Provider != "dvdi":
		p.Add(ext+"/provider", "is unknown provider")
		return
	}
	checkOptions(p, ext+"/options", e)
}

func checkOptions(p *document.Problems, at string, e *definition.External) {
	for _, k := range slices.Sorted(maps.Keys(e.Options)) {
		if !optionShape.MatchString(k) {
			p.Add(at, "must match regular expression '"+optionRule+"'")
			break
		}
	}
	driver, given := e.Options["dvdi/driver"]
	switch {
	case e.FromClass != nil && !given:
		driver = e.FromClass.Driver
	case e.FromClass != nil && driver != e.FromClass.Driver:
		p.Add(at+`("dvdi/driver")`, fmt.Sprintf("class %s is of driver %q, not %q", e.FromClass.Name, e.FromClass.Driver, definition.Short(driver)))
	case !given && e.Class != nil: // said already: there is no such class
	case !given:
		p.Add(at+`("dvdi/driver")`, "not defined")
	case !driverText.MatchString(driver):
		p.Add(at+`("dvdi/driver")`, "must match regular expression '"+driverRule+"'")
	default:
		if err := volume.CheckDriver(driver); err != nil {
			p.Add(at+`("dvdi/driver")`, err.Error())
		}
	}
	if driver == "rexray" {
		for _, k := range []string{"dvdi/volumetype", "dvdi/newfstype"} {
			if s, ok := e.Options[k]; ok && !driverText.MatchString(s) {
				p.Add(at+`/"`+k+`"`, "must match regular expression '"+driverRule+"'")
			}
		}
		if s, ok := e.Options["dvdi/iops"]; ok {
			if n, err := strconv.Atoi(s); err != nil || n <= 0 {
				p.Add(at+`/"dvdi/iops"`, "Expected a valid, positive integer instead of "+definition.Short(s))
			}
		}
		if s, ok := e.Options["dvdi/overwritefs"]; ok && s != "true" && s != "false" {
			p.Add(at+`/"dvdi/overwritefs"`, "Expected a valid boolean")
		}
	}
	if s, ok := e.Options["dvdi/size"]; ok && e.Size == "" {
		if _, err := volume.ParseSize(s); err != nil {
			p.Add(at+`("dvdi/size")`, err.Error())
		}
	}
	if err := volume.CheckOptions(DriverOptions(e)); err != nil {
		p.Add(at, err.Error())
	}
}

// DriverOptions are the options as the driver gets them: those of dvdi, without prefix, driver and size; of csi, the capability.
func DriverOptions(e *definition.External) map[string]string {
	out := map[string]string{}
	if c := e.CSI; c != nil {
		out["access"] = strings.ReplaceAll(strings.ToLower(c.AccessMode), "_", "-")
		if fs := definition.Or(c.FSType, ""); fs != "" {
			out["fs"] = fs
		}
		if len(c.MountFlags) > 0 {
			out["mountflags"] = strings.Join(c.MountFlags, ",")
		}
		return out
	}
	if c := e.FromClass; c != nil {
		maps.Copy(out, c.Options)
	}
	if Encrypt(e) {
		out["encrypt"] = "true"
	}
	for k, v := range e.Options {
		if name, ok := strings.CutPrefix(k, "dvdi/"); ok && name != "driver" && name != "size" {
			out[name] = strings.TrimSpace(v)
		}
	}
	return out
}

// Encrypt tells whether a volume must be encrypted, by its app's word or its class's. A driver that is not known to do it then refuses to create it. An option dvdi/encrypt, which is
// the driver's own affair, stands above the class.
func Encrypt(e *definition.External) bool {
	if _, own := e.Options["dvdi/encrypt"]; own && e.Encrypt == nil {
		return false
	}
	return definition.Or(e.Encrypt, e.FromClass != nil && e.FromClass.Encrypt)
}

func checkCSI(p *document.Problems, at string, v definition.Volume) {
	c := v.External.CSI
	if c == nil {
		p.Add(at+"/external/options", "not defined")
		return
	}
	if (c.AccessMode == "SINGLE_NODE_READER_ONLY" || c.AccessMode == "MULTI_NODE_READER_ONLY") && v.Mode != "RO" {
		p.Add(at+"/mode", "CSI volume must be mounted readonly with a read-only access mode")
	}
	if err := volume.CheckDriver(Driver(v.External)); err != nil {
		p.Add(at+"/external/options/pluginName", err.Error())
	}
	if err := volume.CheckOptions(DriverOptions(v.External)); err != nil {
		p.Add(at+"/external/options", err.Error())
	}
}

// checkExtensions holds the rules on what Marathon has not. Classes have been looked up.
func checkExtensions(p *document.Problems, at string, v definition.Volume) {
	e := v.External
	ext := at + "/external"
	csi := e.Provider != nil && *e.Provider == "csi"
	switch {
	case e.Class != nil && csi:
		p.Add(ext+"/class", "a class names its driver itself: provider csi does not go with it")
	case e.Class != nil && e.FromClass == nil:
		p.Add(ext+"/class", fmt.Sprintf("class %q does not exist", definition.Short(*e.Class)))
	}
	if csi && (e.Encrypt != nil || e.AccessMode != nil) {
		p.Add(ext, "encrypt and accessMode do not go with provider csi: it has options of its own")
	}
	if _, given := e.Options["dvdi/encrypt"]; given && e.Encrypt != nil {
		p.Add(ext+"/encrypt", "is given among the options too")
	}
	if e.AccessMode != nil {
		switch shared := *e.AccessMode != "SINGLE_NODE_WRITER"; {
		case e.Shared != nil && *e.Shared != shared:
			p.Add(ext+"/accessMode", fmt.Sprintf("%s does not go with shared: %t", *e.AccessMode, *e.Shared))
		case *e.AccessMode == "MULTI_NODE_READER_ONLY" && v.Mode != "RO":
			p.Add(at+"/mode", "must be RO with accessMode MULTI_NODE_READER_ONLY")
		}
	}
	if e.Snapshot != nil && e.Clone != nil {
		p.Add(ext, "snapshot and clone do not go together")
	}
	if s := e.Snapshot; s != nil {
		if err := volume.CheckName(strings.ReplaceAll(s.Volume, volume.Ordinal, "0")); err != nil {
			p.Add(ext+"/snapshot/volume", err.Error())
		}
		if err := volume.CheckName(s.Name); err != nil {
			p.Add(ext+"/snapshot/name", err.Error())
		}
	}
	if r := e.Retain; r != nil && definition.Or(r.OnScaleDown, "keep") == "delete" && Shared(&v) {
		p.Add(ext+"/retain/onScaleDown", "a shared volume belongs to no single instance")
	}
}

// Driver is the volume driver of an external volume: csi/NAME for one of provider csi.
func Driver(e *definition.External) string {
	if e.CSI != nil {
		return "csi/" + e.CSI.PluginName
	}
	if e.FromClass != nil && e.Options["dvdi/driver"] == "" {
		return e.FromClass.Driver
	}
	return e.Options["dvdi/driver"]
}

// Shared tells whether all instances use one volume.
func Shared(v *definition.Volume) bool {
	e := v.External
	if e.CSI == nil {
		return definition.Or(e.Shared, false) || e.AccessMode != nil && *e.AccessMode != "SINGLE_NODE_WRITER"
	}
	switch e.CSI.AccessMode {
	case "MULTI_NODE_READER_ONLY", "MULTI_NODE_MULTI_WRITER":
		return true
	case "MULTI_NODE_SINGLE_WRITER":
		return v.Mode == "RO"
	}
	return false
}

// checkVolumesWhole holds the rules that need the number of instances or the other volumes.
func checkVolumesWhole(p *document.Problems, a *definition.App) {
	type owner struct{ driver, pattern string }
	var seen []owner
	names := map[string]bool{}
	for i, v := range a.Volumes() {
		e := v.External
		if e == nil || e.Name == nil {
			continue
		}
		at := fmt.Sprintf("/container/volumes(%d)/external", i)
		shared := Shared(&v)
		if size, err := strconv.ParseInt(e.Size, 10, 64); err == nil && size == 0 && !e.SizeText {
			p.Add(at+"/size", "got 0, expected more than 0")
		}
		if shared && strings.Contains(*e.Name, volume.Ordinal) {
			p.Add(at+"/name", "a shared volume has one name for all instances: "+volume.Ordinal+" is not allowed in it")
		}
		last := volume.NameFor(*e.Name, max(0, *a.Instances-1), shared)
		if err := volume.CheckName(last); err != nil {
			p.Add(at+"/name", err.Error())
		}
		driver := Driver(e)
		if names[*e.Name] {
			p.Add("/container/volumes", "Volume names must be unique")
			if !shared {
				p.Add("/", fmt.Sprintf("Requested DVDI volume '%s' is declared more than once within app %s", definition.Short(*e.Name), a.ID))
			}
			continue
		}
		names[*e.Name] = true
		for _, s := range seen {
			if s.driver == driver && volume.PatternsClash(s.pattern, *e.Name) {
				p.Add("/container/volumes", fmt.Sprintf("Volume names must be unique: %q and %q would name the same volume for some instances", s.pattern, definition.Short(*e.Name)))
			}
		}
		seen = append(seen, owner{driver, *e.Name})
	}
}
