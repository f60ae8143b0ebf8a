package catalog

import (
	"encoding/json"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Limits of what labels may say; what is beyond them is left out. Those of meta are Consul's.
const (
	maxTags, maxTag                     = 64, 255
	maxMeta, maxMetaKey, maxMetaValue   = 64, 128, 512
	metaPrefix                          = "holdfast_"
	metaCluster, metaApp, metaInstance  = metaPrefix + "cluster", metaPrefix + "app", metaPrefix + "instance"
	metaTask, metaVersion, metaVolumes  = metaPrefix + "task", metaPrefix + "version", metaPrefix + "volumes"
	labelConsul, labelTags              = "consul", "tags"
	serviceName, serviceTags, serviceNo = "SERVICE_NAME", "SERVICE_TAGS", "SERVICE_IGNORE"
)

// outline is what a definition says about the services of each instance.
type outline struct {
	services []sketch
	inside   bool // address and ports are the container's
	checked  bool // its health is checked
	ready    bool // it is asked whether it is ready
}

// sketch is one service of an instance.
type sketch struct {
	source source
	suffix string // of the service id: "" for the first, ":<port index>" for others
	port   int    // index of the host port, or the container's port when outline.inside; -1 for no port
	tags   []string
	meta   map[string]string
}

// port is one port of a definition, of the host's network or the container's.
type port struct {
	name, protocol string
	number         int // by which SERVICE_<port>_… speaks of it, 0 for none
	at             int // index of the host port, or the container's port
	labels         map[string]string
}

// outlineOf reads the labels and ports of a definition.
func outlineOf(d *state.Def) *outline {
	o := &outline{checked: d.Spec.Checked(), ready: len(d.Spec.ReadinessChecks) > 0}
	ports := hostPorts(&d.Spec)
	if inside := containerPorts(d); len(ports) == 0 && d.Spec.Container.Network == "container" {
		ports, o.inside = inside, true
	}
	word := func(key string) string {
		if v, ok := d.Spec.Labels[key]; ok {
			return v
		}
		return d.Spec.Env[key]
	}
	label, labelled := d.Spec.Labels[labelConsul]
	if labelled && isNo(label) || word(serviceNo) != "" && !isNo(word(serviceNo)) {
		return o
	}
	given := word(serviceName)
	if labelled && !isYes(label) {
		given = label
	}
	tags := appTags(d.Spec.Labels, word(serviceTags))
	meta := userMeta(d.Spec.Labels)
	app := string(d.App)
	main := source{text: given}
	if given == "" {
		main = source{text: app, owner: app}
	}
	if len(ports) == 0 {
		o.services = []sketch{{source: main, port: -1, tags: tags, meta: meta}}
		return o
	}
	for i, p := range ports {
		// The first port that is not left out has the app's name, and so instance-0.<name> works whatever ports are called.
		o.services = append(o.services, portServices(main, app, i, p, len(o.services) == 0, len(ports) > 1, word, tags, meta)...)
	}
	return o
}

// portServices gives the services of one port: the first port has the app's name, and each named one a name of its own
// where there are several.
func portServices(main source, app string, i int, p port, first, several bool, word func(string) string, tags []string, meta map[string]string) (out []sketch) {
	own := func(what string) string { return "" }
	if p.number > 0 {
		own = func(what string) string { return word("SERVICE_" + strconv.Itoa(p.number) + "_" + what) }
	}
	label, labelled := p.labels[labelConsul]
	if labelled && isNo(label) || own("IGNORE") != "" && !isNo(own("IGNORE")) {
		return nil
	}
	given := p.labels[serviceName]
	if given == "" {
		given = own("NAME")
	}
	if labelled && !isYes(label) {
		given = label
	}
	all := append(slices.Clone(tags), splitTags(own("TAGS"))...)
	all = append(all, appTags(p.labels, p.labels[serviceTags])...)
	if p.protocol == "udp" {
		all = append(all, "udp")
	}
	s := sketch{port: p.at, tags: tidyTags(all), meta: meta}
	if first && (several || given == "") {
		s.source = main
		out = append(out, s)
	}
	switch {
	case given != "":
		s.source = source{text: given}
	case p.name != "" && several:
		s.source = source{text: main.text + "-" + p.name, owner: app + "#" + p.name}
		if main.owner == "" {
			s.source.owner = "" // of a given name: shared as that is
		}
	default:
		return out
	}
	if several {
		s.suffix = ":" + strconv.Itoa(i)
	}
	return append(out, s)
}

func hostPorts(s *state.Spec) (out []port) {
	for i, p := range s.Ports {
		n := p.ContainerPort
		if n == 0 {
			n = p.Want
		}
		out = append(out, port{name: p.Name, protocol: p.Protocol, number: n, at: i, labels: p.Labels})
	}
	return out
}

// containerPorts reads the port mappings of a definition, for containers with an address of their own.
func containerPorts(d *state.Def) (out []port) {
	var source struct {
		Container struct {
			PortMappings []struct {
				ContainerPort  int               `json:"containerPort"`
				Name, Protocol string            `json:",omitempty"`
				Labels         map[string]string `json:"labels"`
			} `json:"portMappings"`
		} `json:"container"`
	}
	if d.Spec.Container.Network != "container" || json.Unmarshal(d.Source, &source) != nil {
		return nil
	}
	for _, m := range source.Container.PortMappings {
		if m.ContainerPort > 0 && m.ContainerPort < 1<<16 {
			out = append(out, port{name: m.Name, protocol: m.Protocol, number: m.ContainerPort, at: m.ContainerPort, labels: m.Labels})
		}
	}
	return out
}

func isYes(label string) bool { return label == "" || strings.EqualFold(label, "true") }
func isNo(label string) bool  { return strings.EqualFold(label, "false") }

// appTags are those that labels give: the list `tags` (mesos-consul), SERVICE_TAGS (registrator), and every label whose value is
// `tag` (marathon-consul).
func appTags(labels map[string]string, list string) []string {
	out := append(splitTags(labels[labelTags]), splitTags(list)...)
	n := len(out)
	for k, v := range labels {
		if v == "tag" && k != labelTags && k != labelConsul {
			out = append(out, k)
		}
	}
	sort.Strings(out[n:])
	return tidyTags(out)
}

func splitTags(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// reserved are the tags that only Holdfast gives.
var reserved = regexp.MustCompile(`(?i)^(instance-[0-9]+|primary)$`)

// tidyTags leaves out what is empty, doubled, too long, too much, or reserved.
func tidyTags(tags []string) []string {
	var out []string
	for _, tag := range tags {
		tag = strings.TrimSpace(tag)
		if tag != "" && len(tag) <= maxTag && len(out) < maxTags && !reserved.MatchString(tag) && !slices.Contains(out, tag) {
			out = append(out, tag)
		}
	}
	return out
}

var metaKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// userMeta are the labels SERVICE_<KEY>, as registrator reads them: the key in lower case.
func userMeta(labels map[string]string) map[string]string {
	out := map[string]string{}
	keys := make([]string, 0, len(labels))
	for k := range labels {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k, "SERVICE_")
		key := strings.ToLower(rest)
		if !ok || slices.Contains([]string{serviceName, serviceTags, serviceNo, "SERVICE_ID"}, k) || portWord.MatchString(rest) {
			continue
		}
		fits := metaKey.MatchString(key) && len(key) <= maxMetaKey && len(labels[k]) <= maxMetaValue && len(out) < maxMeta-6
		if fits && !strings.HasPrefix(key, metaPrefix) && !strings.HasPrefix(key, "consul-") {
			out[key] = labels[k]
		}
	}
	return out
}

// portWord is SERVICE_<port>_… without SERVICE_.
var portWord = regexp.MustCompile(`^[0-9]+_`)
