// Package takeover is the command line's verbs that take apps and volumes over from elsewhere: from a running Marathon or its export, from
// services of the DC/OS SDK, and single volumes.
package takeover

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// importer is the console of these verbs.
type importer struct{ *console.Console }

// Import gives the verb for apps and volumes of other systems.
func Import(c *console.Console) *cobra.Command {
	i := &importer{c}
	return console.Verbs("import", "Take apps and volumes over from elsewhere", importMarathon(i), importSDK(i))
}

func absoluteID(id string) string { return "/" + strings.Trim(id, "/") }

func importMarathon(c *importer) *cobra.Command {
	var apply bool
	var only string
	cmd := &cobra.Command{
		Use: "marathon URL|FILE", Short: "Take over the apps of a running Marathon, or of an export of its groups or apps", Args: cobra.ExactArgs(1),
		Long: "Reads apps from a Marathon (GET /v2/groups) or a file (what /v2/groups or /v2/apps gave; -: standard input), and tells per app what would\n" +
			"be done with it and its volumes. Nothing is changed without --apply. With it, volumes are adopted, never created, where Marathon has them\n" +
			"(instance 0, and more where it had more), and apps are made in the order of their dependencies. It may be repeated.\n\n" +
			"Stop the apps in Marathon first: what Marathon runs knows nothing of claims.",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := c.readExport(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			apps, err := appsOf(raw)
			if err != nil {
				return err
			}
			plan, err := c.planImport(cmd.Context(), apps, only)
			if err != nil {
				return err
			}
			return c.carryOut(cmd.Context(), plan, apply)
		},
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "do it, rather than tell what would be done")
	cmd.Flags().StringVar(&only, "only", "", "only apps whose id begins so")
	return cmd
}

// readExport reads a Marathon's groups, or a file.
func (c *importer) readExport(ctx context.Context, from string) ([]byte, error) {
	if !strings.HasPrefix(from, "http://") && !strings.HasPrefix(from, "https://") {
		return c.readAny(from)
	}
	url := strings.TrimRight(from, "/") + "/v2/groups?embed=group.groups&embed=group.apps&embed=group.pods"
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read %s", from)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read %s", from)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Unavailable, "%s answers %s", url, resp.Status)
	}
	return raw, fault.Wrap(fault.Unavailable, err, "read %s", url)
}

// exported is one app of an export: the whole object, and what import looks at.
type exported struct {
	ID           string
	Instances    *int
	Role         *string
	Dependencies []string
	Container    *struct {
		Volumes []struct {
			External *struct {
				Name, Class string
				Provider    string
				Options     map[string]any
				Shared      bool
			}
		}
	}
	raw map[string]json.RawMessage
}

// appsOf finds the apps in an export: a group with groups in it, {"apps": [...]}, a list, or one app.
func appsOf(raw []byte) (apps []*exported, err error) {
	var group struct {
		Apps, Groups, Pods []json.RawMessage
		ID                 string
		Cmd, Container     json.RawMessage
	}
	bad := func(err error) error { return fault.Wrap(fault.Invalid, err, "read the export") }
	text := strings.TrimSpace(string(raw))
	switch {
	case strings.HasPrefix(text, "["):
		if err := json.Unmarshal(raw, &group.Apps); err != nil {
			return nil, bad(err)
		}
	default:
		if err := json.Unmarshal(raw, &group); err != nil {
			return nil, bad(err)
		}
		if group.Apps == nil && group.Groups == nil && group.ID != "" {
			group.Apps = []json.RawMessage{raw}
		}
	}
	for _, one := range group.Apps {
		a := &exported{}
		if err := json.Unmarshal(one, a); err != nil {
			return nil, bad(err)
		}
		if err := json.Unmarshal(one, &a.raw); err != nil {
			return nil, bad(err)
		}
		if a.ID == "" {
			return nil, fault.New(fault.Invalid, "the export has an app without an id")
		}
		a.ID = absoluteID(a.ID)
		apps = append(apps, a)
	}
	for _, sub := range group.Groups {
		more, err := appsOf(sub)
		if err != nil {
			return nil, err
		}
		apps = append(apps, more...)
	}
	return apps, nil
}

// definition is the app as it is sent: without what an answer holds besides, and without a role, which is the framework's.
func (a *exported) definition() json.RawMessage {
	keep := map[string]json.RawMessage{}
	for k, v := range a.raw {
		switch k {
		case "version", "versionInfo", "tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "lastTaskFailure", "tasksStats", "taskStats",
			"readinessCheckResults", "role", "fullId", "storeUrls":
			continue
		}
		keep[k] = v
	}
	raw, err := json.Marshal(keep)
	if err != nil {
		return nil // raw messages that were read
	}
	return raw
}

// planned is what import would do with one app.
type planned struct {
	App      string   `json:"app"`
	Action   string   `json:"action"` // create, update, none, refused
	Volumes  []move   `json:"volumes,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	Errors   []string `json:"errors,omitempty"`
	exported *exported
}

// move is what import would do with one volume.
type move struct {
	Driver   string `json:"driver"`
	Name     string `json:"name"`
	Instance int    `json:"instance"`
	Shared   bool   `json:"shared,omitempty"`
	Action   string `json:"action"` // adopt, keep, conflict
	Why      string `json:"why,omitempty"`
}

func (c *importer) planImport(ctx context.Context, apps []*exported, only string) (plan []planned, err error) {
	volumes, err := c.Client().Volumes(ctx, "")
	if err != nil {
		return nil, err
	}
	known := map[string]client.Volume{}
	for _, v := range volumes {
		known[v.Driver+"/"+v.Name] = v
	}
	taken := map[string]string{} // by apps of this import
	for _, a := range inOrder(apps) {
		if !strings.HasPrefix(a.ID, only) {
			continue
		}
		p := planned{App: a.ID, exported: a, Volumes: a.moves(known, taken)}
		if a.Role != nil && *a.Role != "*" {
			p.Notes = append(p.Notes, fmt.Sprintf("role %s becomes the framework's", *a.Role))
		}
		r, err := c.Client().CheckApp(ctx, a.ID, a.definition())
		switch {
		case fault.Is(err, fault.Unavailable):
			return nil, err
		case err != nil:
			p.Action, p.Errors = "refused", complaints(err)
		default:
			p.Notes = append(p.Notes, r.Warnings...)
			p.Action = "none"
			for _, change := range r.Changes {
				p.Action = change.Action
			}
		}
		plan = append(plan, p)
	}
	return plan, nil
}

// complaints lists an error's details, or the error itself.
func complaints(err error) (list []string) {
	for _, d := range fault.DetailsOf(err) {
		for _, e := range d.Errors {
			list = append(list, d.Path+": "+e)
		}
	}
	if len(list) == 0 {
		list = append(list, err.Error())
	}
	return list
}

// moves tells what becomes of an app's external volumes.
func (a *exported) moves(known map[string]client.Volume, taken map[string]string) (out []move) {
	if a.Container == nil {
		return nil
	}
	instances := 1
	if a.Instances != nil {
		instances = max(1, *a.Instances) // one that is scaled to 0 has its volume still
	}
	for _, v := range a.Container.Volumes {
		e := v.External
		if e == nil || e.Name == "" || e.Class != "" {
			continue
		}
		driver, _ := e.Options["dvdi/driver"].(string)
		if plugin, ok := e.Options["pluginName"].(string); ok && e.Provider == "csi" {
			driver = "csi/" + plugin
		}
		for n := range instances {
			if e.Shared && n > 0 {
				break
			}
			m := move{Driver: driver, Name: volume.NameFor(e.Name, n, e.Shared), Instance: n, Shared: e.Shared, Action: "adopt"}
			key := m.Driver + "/" + m.Name
			have, there := known[key]
			other := taken[key]
			switch {
			case there && have.App == a.ID:
				m.Action = "keep"
			case there:
				m.Action, m.Why = "conflict", "it is a volume of "+have.App
			case other != "" && other != a.ID && !e.Shared:
				m.Action, m.Why = "conflict", "it is a volume of "+other+" too"
			}
			taken[key] = a.ID
			out = append(out, m)
		}
	}
	return out
}

// inOrder sorts apps so that what an app depends on comes before it; circles stay as they are, the server refuses them.
func inOrder(apps []*exported) (out []*exported) {
	sorted := slices.SortedFunc(slices.Values(apps), func(a, b *exported) int { return strings.Compare(a.ID, b.ID) })
	done := map[string]bool{}
	var visit func(a *exported)
	visit = func(a *exported) {
		if done[a.ID] {
			return
		}
		done[a.ID] = true
		for _, d := range a.Dependencies {
			d = absoluteID(d)
			for _, b := range sorted {
				if b.ID == d || strings.HasPrefix(b.ID, strings.TrimSuffix(d, "/")+"/") {
					visit(b)
				}
			}
		}
		out = append(out, a)
	}
	for _, a := range sorted {
		visit(a)
	}
	return out
}

// carryOut shows the plan and, with apply, does it. What is refused or in conflict is left out, and makes the verb fail in the end.
func (c *importer) carryOut(ctx context.Context, plan []planned, apply bool) error {
	if c.JSON() {
		if plan == nil {
			plan = []planned{}
		}
		c.Encode(c.Out, plan)
	} else {
		c.printPlan(plan)
	}
	left := 0
	for _, p := range plan {
		if p.Action == "refused" || slices.ContainsFunc(p.Volumes, func(m move) bool { return m.Action == "conflict" }) {
			left++
			continue
		}
		if !apply {
			continue
		}
		if err := c.takeOver(ctx, p); err != nil {
			return fault.Op(err, "import %s (what came before it is done; repeat the import to go on)", p.App)
		}
	}
	switch {
	case left > 0:
		return fault.New(fault.Conflict, "%d of %d apps cannot be taken over as they are", left, len(plan))
	case !apply:
		fmt.Fprintf(c.Err, "nothing was changed; --apply does it\n")
	}
	return nil
}

func (c *importer) takeOver(ctx context.Context, p planned) error {
	for _, m := range p.Volumes {
		if m.Action != "adopt" {
			continue
		}
		if _, err := c.Client().AdoptVolume(ctx, m.Driver, m.Name, p.App, m.Instance, m.Shared); err != nil {
			return err
		}
	}
	if p.Action == "none" {
		return nil
	}
	r, err := c.Client().PutApp(ctx, p.exported.definition(), client.PutOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "%s: %s, deployment %s\n", p.App, p.Action, r.Deployment)
	return nil
}

func (c *importer) printPlan(plan []planned) {
	t := console.Table{Head: []string{"APP", "ACTION", "VOLUME", "FOR", "WHAT"}}
	for _, p := range plan {
		if len(p.Volumes) == 0 {
			t.Add(p.App, p.Action, "-", "-", "-")
		}
		for _, m := range p.Volumes {
			who := fmt.Sprintf("instance %d", m.Instance)
			if m.Shared {
				who = "all"
			}
			what := m.Action
			if m.Why != "" {
				what += ": " + m.Why
			}
			t.Add(p.App, p.Action, m.Driver+"/"+m.Name, who, what)
		}
	}
	t.Print(c.Out)
	for _, p := range plan {
		for _, e := range p.Errors {
			fmt.Fprintf(c.Out, "%s: refused: %s\n", p.App, e)
		}
		for _, n := range p.Notes {
			fmt.Fprintf(c.Out, "%s: note: %s\n", p.App, n)
		}
	}
}

func importSDK(c *importer) *cobra.Command {
	var o sdkVolumes
	var apply bool
	cmd := &cobra.Command{
		Use: "sdk APP", Short: "Adopt the volumes of a DC/OS SDK service (dcos-commons, Portworx, NetApp) for an app", Args: cobra.ExactArgs(1),
		Long: "Adopts the volumes of one pod type of a service that the DC/OS SDK ran, by the names it gave them, for an app that is made afterwards.\n" +
			"It prints the name that the app's volume must have. Nothing is changed without --apply.\n\n" +
			"  --rule portworx   <service>-<pod>-<index>, or <volume name>-<index>\n" +
			"  --rule netapp     <service>_<pod>_<index>, or <volume name>_<index>\n" +
			"  --rule generic    <service>_<pod>-<container path>_<index>, or <volume name>_<index>\n\n" +
			"Slashes in names are written __, as the SDK does.",
		RunE: func(cmd *cobra.Command, args []string) error {
			pattern, err := o.pattern()
			if err != nil {
				return err
			}
			app := absoluteID(args[0])
			list := make([]move, 0, o.count)
			for n := range o.count {
				list = append(list, move{Driver: o.driver, Name: volume.NameFor(pattern, n, false), Instance: n, Action: "adopt"})
			}
			if c.JSON() {
				c.Encode(c.Out, map[string]any{"app": app, "pattern": pattern, "volumes": list})
			} else {
				c.printPlan([]planned{{App: app, Action: "none", Volumes: list}})
				fmt.Fprintf(c.Out, "in the app: \"external\": {\"name\": %q, \"provider\": \"dvdi\", \"options\": {\"dvdi/driver\": %q}}\n", pattern, o.driver)
			}
			if !apply {
				fmt.Fprintf(c.Err, "nothing was changed; --apply does it\n")
				return nil
			}
			return c.takeOver(cmd.Context(), planned{App: app, Action: "none", Volumes: list})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.service, "service", "", "name of the SDK service, with its folders")
	f.StringVar(&o.pod, "pod", "", "pod type")
	f.StringVar(&o.volume, "volume", "", "volume name, where the service's specification gave one")
	f.StringVar(&o.path, "path", "", "container path, for --rule generic")
	f.StringVar(&o.driver, "driver", "pxd", "volume driver")
	f.StringVar(&o.rule, "rule", "portworx", "portworx, netapp or generic")
	f.IntVar(&o.count, "count", 1, "number of pods")
	f.BoolVar(&apply, "apply", false, "do it, rather than tell what would be done")
	return cmd
}

// sdkVolumes names the volumes of one pod type.
type sdkVolumes struct {
	service, pod, volume, path, driver, rule string
	count                                    int
}

// pattern is the template of the volumes' names by the SDK's rules.
func (o *sdkVolumes) pattern() (string, error) {
	between := map[string]string{"portworx": "-", "netapp": "_", "generic": "_"}[o.rule]
	switch {
	case between == "":
		return "", console.Usage(fmt.Sprintf("--rule is %q: portworx, netapp and generic are known", o.rule))
	case o.volume == "" && (o.service == "" || o.pod == ""):
		return "", console.Usage("--service and --pod are needed, or --volume")
	case o.count < 1 || o.count > 10000:
		return "", console.Usage("--count must be 1 to 10000")
	}
	name := o.volume
	if name == "" {
		name = o.service + between + o.pod
		if o.rule == "generic" && o.path != "" {
			name += "-" + o.path
		}
	}
	name = strings.ReplaceAll(strings.Trim(name, "/"), "/", "__") + between + volume.Ordinal
	if err := volume.CheckName(volume.NameFor(name, o.count-1, false)); err != nil {
		return "", err
	}
	return name, nil
}

// Adopt gives the verb for one volume.
func Adopt(base *console.Console) *cobra.Command {
	c := &importer{base}
	var app string
	var instance int
	var shared bool
	cmd := &cobra.Command{
		Use: "adopt DRIVER/NAME --app APP", Short: "Make a volume that storage has already, or that nobody uses, an app's", Args: cobra.ExactArgs(1),
		Long: "Makes a volume an app's, which need not be there yet: its instance finds it by its name. A volume that is adopted is never created: where it\n" +
			"is not there, the instance waits and says so. One that is recorded already is passed on while nobody uses it and its claim is free.",
		RunE: func(cmd *cobra.Command, args []string) error {
			at := strings.LastIndexByte(args[0], '/')
			if at < 0 || app == "" {
				return console.Usage("a driver and a name, driver/name, and --app are needed")
			}
			if _, err := c.Client().AdoptVolume(cmd.Context(), args[0][:at], args[0][at+1:], absoluteID(app), instance, shared); err != nil {
				return err
			}
			fmt.Fprintf(c.Err, "volume %s belongs to %s\n", args[0], absoluteID(app))
			return nil
		},
	}
	cmd.Flags().StringVar(&app, "app", "", "the app")
	cmd.Flags().IntVar(&instance, "instance", 0, "number of the instance")
	cmd.Flags().BoolVar(&shared, "shared", false, "it is shared by all instances")
	return cmd
}

// readAny reads a file, or standard input for "-".
func (c *importer) readAny(name string) (raw []byte, err error) {
	if name == "-" {
		raw, err = io.ReadAll(io.LimitReader(c.In, 256<<20))
	} else {
		raw, err = os.ReadFile(name)
	}
	return raw, fault.Wrap(fault.Invalid, err, "read %s", name)
}
