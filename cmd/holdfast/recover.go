package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/mesos/credential"
	"github.com/holdfast-io/holdfast/framework/recovery"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// recoverFlags say where the world is read, and where the state goes.
type recoverFlags struct {
	to                    stateFlags
	master, authority     string
	access                masterFlags
	authorityFiles        dial.Options
	principal, secretFile string
	frameworkID, name     string
	role                  string
	apps                  []string
	older                 string
	apply, killUnknown    bool
}

func stateRecoverCommand(c *console.Console) *cobra.Command {
	var r recoverFlags
	cmd := &cobra.Command{
		Use: "recover", Short: "Rebuild a lost store from the master's tasks, the claims and the reservations", Args: cobra.NoArgs,
		Long: "Rebuilds the framework's state when its store is lost and there is no backup that is good enough. Definitions of apps are nowhere but in the store: give them with\n" +
			"--apps (Marathon JSON: apps, groups, or what GET /v2/apps or /v2/groups answered) or with --older (an old file of `state export`). Instances come from the tasks that the\n" +
			"master knows, volumes and their epochs from the lease authority's claims, reservations from the labels on the agents' resources.\n" +
			"Without --apply it shows what it would write, and writes nothing. The framework must be stopped; tasks go on. What is running is taken to run the definition\n" +
			"that is given, so give the newest one: nothing is restarted.",
		Example: "  holdfast state recover --dir /var/lib/holdfast --master zk://z1,z2,z3/mesos --authority zk://z1,z2,z3/holdfast/leases --apps apps/\n" +
			"  holdfast state recover … --apps apps/ --apply",
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context(), c) },
	}
	f := cmd.Flags()
	r.to.store.add(f)
	f.StringVar(&r.to.dir, "dir", "", "the framework's directory, when its state is to be a file there")
	f.StringVar(&r.master, "master", "", "Mesos master, as for `holdfast framework`")
	r.access.add(f)
	f.StringVar(&r.principal, "principal", "", "Mesos principal")
	f.StringVar(&r.secretFile, "secret-file", "", "file with the principal's secret")
	f.StringVar(&r.authority, "authority", "", "lease authority, as for `holdfast framework`")
	f.StringVar(&r.authorityFiles.SecretFile, "authority-secret-file", "", "file with user:password for ZooKeeper, or the token for Consul")
	f.StringVar(&r.authorityFiles.CAFile, "authority-ca-file", "", "certificates that consuls:// trusts")
	f.StringVar(&r.authorityFiles.CertFile, "authority-cert-file", "", "client certificate for consuls://")
	f.StringVar(&r.authorityFiles.KeyFile, "authority-key-file", "", "its key")
	f.StringVar(&r.frameworkID, "framework-id", "", "id of the framework at the master, when several have its name")
	f.StringVar(&r.name, "name", "holdfast", "name of the framework in Mesos")
	f.StringVar(&r.role, "role", "holdfast", "Mesos role of the framework")
	f.StringArrayVar(&r.apps, "apps", nil, "JSON file with apps or groups, or a directory of such files; may be repeated")
	f.StringVar(&r.older, "older", "", "an older file of `holdfast state export`: apps that --apps does not give, classes and groups are taken from it")
	f.BoolVar(&r.killUnknown, "kill-unknown", false, "go on although tasks run whose app was not given: the framework will kill them")
	f.BoolVar(&r.apply, "apply", false, "write it")
	return cmd
}

func (r *recoverFlags) run(ctx context.Context, c *console.Console) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	switch {
	case r.to.store.check() != nil:
		return r.to.store.check()
	case (r.to.dir == "") == (r.to.store.address == ""):
		return console.Usage("one of --dir and --store is needed")
	case r.master == "" || r.authority == "":
		return console.Usage("--master and --authority are needed")
	case len(r.apps) == 0 && r.older == "":
		return console.Usage("--apps or --older is needed: definitions of apps are nowhere but in the store")
	}
	w, err := r.world(ctx)
	if err != nil {
		return err
	}
	plan, err := recovery.Plan(*w)
	if err != nil {
		return err
	}
	if c.JSON() {
		c.Encode(c.Out, plan)
	} else {
		printRecovery(c, w, plan)
	}
	switch {
	case !r.apply:
		fmt.Fprintln(c.Err, "nothing was written; --apply writes it")
		return nil
	case len(plan.Unknown) > 0 && !r.killUnknown:
		return fault.New(fault.Conflict, "%d tasks run whose app was not given, and would be killed (the first is %s): give their apps, or say --kill-unknown", len(plan.Unknown), plan.Unknown[0].Task)
	}
	return r.write(ctx, c, w.Cluster, plan)
}

// world reads everything; it changes nothing.
func (r *recoverFlags) world(ctx context.Context) (*recovery.World, error) {
	w := &recovery.World{Now: time.Now().UTC().Truncate(time.Millisecond)}
	if err := r.readAuthority(ctx, w); err != nil {
		return nil, err
	}
	if err := r.readMaster(ctx, w); err != nil {
		return nil, err
	}
	apps := map[state.AppID]recovery.App{}
	if err := r.readOlder(w, apps); err != nil {
		return nil, err
	}
	for _, name := range r.apps {
		if err := r.readApps(name, w.Now, apps); err != nil {
			return nil, err
		}
	}
	ids := make([]state.AppID, 0, len(apps))
	for id := range apps {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		w.Apps = append(w.Apps, apps[id])
	}
	return w, nil
}

func (r *recoverFlags) readAuthority(ctx context.Context, w *recovery.World) error {
	registers, err := dial.Open(r.authority, r.authorityFiles)
	if err != nil {
		return err
	}
	defer registers.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	a := lease.New(registers, lease.Options{CallLimit: 30 * time.Second})
	root, err := a.Root(ctx)
	if err == nil {
		w.Cluster = root.Cluster
		w.Claims, err = a.Claims(ctx)
	}
	if err == nil {
		w.Nodes, err = a.Nodes(ctx)
	}
	return fault.Op(err, "lease authority %s", withoutSecret(r.authority))
}

func (r *recoverFlags) readMaster(ctx context.Context, w *recovery.World) error {
	secret, err := readSecret(r.secretFile)
	if err != nil {
		return err
	}
	zkSecret, err := readSecret(r.access.secretFile)
	if err != nil {
		return err
	}
	secure, err := r.access.config(zap.NewNop())
	if err != nil {
		return err
	}
	who, err := credential.New(r.principal, secret, secure)
	if err != nil {
		return fault.Op(err, "--secret-file")
	}
	client, err := mesos.New(mesos.Config{Master: r.master, MasterSecret: zkSecret, TLS: secure, Credential: who})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if w.Census, err = client.TakeCensus(ctx); err != nil {
		return err
	}
	var found []mesos.CensusFramework
	for _, f := range w.Census.Frameworks {
		if f.ID == r.frameworkID || r.frameworkID == "" && f.Name == r.name {
			found = append(found, f)
		}
	}
	switch {
	case len(found) == 0:
		return fault.New(fault.NotFound, "master %s knows no framework %s: it is over, and its tasks with it, or has another --name", w.Census.Master, dashed(r.frameworkID, r.name))
	case len(found) > 1:
		return fault.New(fault.Conflict, "master %s knows several frameworks named %s: say which with --framework-id (%s, %s …)", w.Census.Master, r.name, found[0].ID, found[1].ID)
	case found[0].Connected:
		return fault.New(fault.Conflict, "framework %s is connected to master %s: stop every framework process first", found[0].ID, w.Census.Master)
	}
	w.Framework = found[0].ID
	return nil
}

func dashed(id, name string) string {
	if id != "" {
		return id
	}
	return "named " + name
}

// readOlder takes definitions, classes, groups and what was known of volumes from an older export.
func (r *recoverFlags) readOlder(w *recovery.World, apps map[state.AppID]recovery.App) error {
	if r.older == "" {
		return nil
	}
	f, err := os.Open(r.older)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "--older")
	}
	defer f.Close()
	h, ops, err := readState(f)
	if err != nil {
		return fault.Op(err, "--older %s", r.older)
	}
	if h.Cluster != w.Cluster {
		return fault.New(fault.Conflict, "%s is of cluster %s, and the lease authority of %s", r.older, h.Cluster, w.Cluster)
	}
	w.Older = map[state.VolumeUID]*state.Volume{}
	defs := map[string]*state.Def{}
	var had []*state.App
	for _, op := range ops {
		rec, err := store.Decode(strings.TrimPrefix(op.Key, store.Prefix(h.Cluster)), op.Value)
		if err != nil {
			return err
		}
		switch v := rec.Value.(type) {
		case *state.App:
			had = append(had, v)
		case *state.Def:
			defs[rec.ID] = v
		case *state.Volume:
			w.Older[v.UID] = v
		case *state.Class, *state.AppGroup, *state.NodeOrder, *state.Hold:
			w.Kept = append(w.Kept, rec)
		}
	}
	for _, a := range had {
		if d := defs[state.DefID(a.ID, a.Version)]; d != nil && !a.Removed {
			apps[a.ID] = recovery.App{Def: d, Instances: a.Instances}
		}
	}
	return nil
}

// readApps reads a file, or all *.json of a directory.
func (r *recoverFlags) readApps(name string, now time.Time, apps map[state.AppID]recovery.App) error {
	return filepath.WalkDir(name, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "--apps")
		}
		if d.IsDir() || file != name && filepath.Ext(file) != ".json" {
			return nil
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "--apps")
		}
		list, err := appsIn(raw)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "--apps %s", file)
		}
		for _, text := range list {
			a, err := r.readApp(text, now)
			if err != nil {
				return fault.Op(err, "--apps %s", file)
			}
			apps[a.Def.App] = a
		}
		return nil
	})
}

// appsIn finds the apps in a document: one app, a list, what GET /v2/apps or /v2/apps/{id} answered, or a group with groups in it. Ids in groups are absolute, as answers have them.
func appsIn(raw []byte) (list []json.RawMessage, err error) {
	if t := bytes.TrimSpace(raw); len(t) > 0 && t[0] == '[' {
		err := json.Unmarshal(raw, &list)
		return list, err
	}
	var doc struct {
		App    json.RawMessage   `json:"app"`
		Apps   []json.RawMessage `json:"apps"`
		Groups []json.RawMessage `json:"groups"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	switch {
	case doc.App != nil:
		return []json.RawMessage{doc.App}, nil
	case doc.Apps == nil && doc.Groups == nil:
		return []json.RawMessage{raw}, nil
	}
	list = doc.Apps
	for _, g := range doc.Groups {
		more, err := appsIn(g)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func (r *recoverFlags) readApp(text json.RawMessage, now time.Time) (out recovery.App, err error) {
	a, _, err := marathon.Parse(text, marathon.Options{Role: r.role})
	if err != nil {
		return out, err
	}
	if !strings.HasPrefix(a.ID, "/") {
		return out, fault.New(fault.Invalid, "app id %q is not absolute", a.ID)
	}
	if err := a.Unsupported(); err != nil {
		return out, err
	}
	spec, err := a.Spec()
	if err != nil {
		return out, err
	}
	if role := definition.Or(a.Role, "*"); role != "*" && role != r.role {
		spec.Role = role
	}
	var answer struct {
		Version string `json:"version"`
	}
	_ = json.Unmarshal(text, &answer) // "" when it is none
	at, err := time.Parse(time.RFC3339, answer.Version)
	if err != nil {
		at = now
	}
	version := at.UTC().Format("2006-01-02T15:04:05.000Z")
	return recovery.App{Def: &state.Def{App: state.AppID(a.ID), Version: version, Spec: spec, Source: a.JSON()}, Instances: *a.Instances}, nil
}

// write fills the empty store.
func (r *recoverFlags) write(ctx context.Context, c *console.Console, cluster string, plan *recovery.Result) error {
	back, st, err := r.to.open(ctx, cluster)
	if err != nil {
		return err
	}
	defer back.Close()
	ops, err := st.Encode(plan.Writes)
	if err != nil {
		return err
	}
	if err := fillEmpty(ctx, back, st, ops); err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "%d records of cluster %s are in %s now: start the framework\n", len(ops), cluster, back.Name())
	return nil
}

func printRecovery(c *console.Console, w *recovery.World, p *recovery.Result) {
	fmt.Fprintf(c.Out, "cluster %s, framework %s at master %s\n\n", w.Cluster, w.Framework, w.Census.Master)
	apps := console.Table{Head: []string{"APP", "INSTANCES", "RUNNING", "VERSION"}}
	for _, a := range p.Apps {
		apps.Add(string(a.ID), fmt.Sprint(a.Instances), fmt.Sprint(a.Running), a.Version)
	}
	apps.Print(c.Out)
	tasks := console.Table{Head: []string{"INSTANCE", "TASK", "STATE", "HOST"}}
	for _, i := range p.Instances {
		tasks.Add(string(i.ID), string(i.Task), i.State, i.Host)
	}
	for _, i := range p.Unknown {
		tasks.Add("UNKNOWN", string(i.Task), i.State, i.Host)
	}
	volumes := console.Table{Head: []string{"VOLUME", "INSTANCE", "CLAIM", "UID"}}
	for _, v := range p.Volumes {
		owner := string(v.Instance)
		if owner == "" {
			owner = string(v.App)
		}
		volumes.Add(v.Ref.String(), owner, fmt.Sprintf("%s (%d)", v.Claim, v.Epoch), string(v.UID))
	}
	kept := console.Table{Head: []string{"RESERVED FOR", "HOST", "STATE", "LOCAL VOLUMES"}}
	for _, x := range p.Reservations {
		kept.Add(string(x.Instance), x.Host, x.Phase, fmt.Sprint(x.Volumes))
	}
	for _, t := range []*console.Table{&tasks, &volumes, &kept} {
		fmt.Fprintln(c.Out)
		t.Print(c.Out)
	}
	for _, n := range p.Notes {
		fmt.Fprintln(c.Out, "note:", n)
	}
}
