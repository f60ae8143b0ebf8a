// Package csi is a driver.Driver over any CSI v1 plugin, reached by its unix socket. A CSI plugin knows volumes by ids that it
// makes up itself, wants to be told every step of a mount (attach, stage, publish) and expects its caller to remember how far it
// came. So this package keeps two kinds of files:
//
//	<names>/<volume>.json        the record (csibook): which id, capability and context the plugin gave to a volume's name, and the volume's uid
//	<names>/snapshots/<volume>@<snapshot>.json   the same of a snapshot
//	<dir>/ledger/<volume>.json   how far the mount of a volume on this node has been begun (csistage); written and synced before each step
//
// What a plugin can do is asked of it once per connection (csiwire); a power that it has not is refused with that reason, and nothing
// else depends on it.
//
// Records lie in a directory of this node unless the operator names one that all nodes see. Whoever has no record and may not
// conclude that there is no volume, says Unknown: only a plugin's word, or a record book that is known to be the only one, makes NotFound.
package csi

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csibook"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// Options of a client. Name, Endpoint, Dir and Mounts are needed.
type Options struct {
	Name     string // the driver's name, csi/<name>
	Endpoint string // unix:///path of the plugin's socket
	// Controller is the socket of the controller service where that is another process than the node service; "" is Endpoint.
	Controller string
	Dir        string // where the ledger, the staging mounts and, without Names, the records lie; absolute, this node's own
	Mounts     string // below which volumes are published, in <Mounts>/<Name>/<volume>; absolute
	// Names is a directory for the records that every node of the cluster sees, "" for one in Dir. With it a volume without record
	// does not exist, so everything must be created by way of it.
	Names string
	// IDsAreNames says that the plugin's id of a volume is the name that it was created by. The plugin is then asked whether a
	// volume exists, and volumes that others made are found.
	IDsAreNames bool
	Scope       string // driver.ScopeCluster, ScopeZone or ScopeNode; "" goes by what the plugin says of topology
	Secrets     string // directory with one file per secret, sent with the calls that take secrets (csiwire.Stages); "" sends none
	// Freeze says that the plugin takes snapshots below the volume's file system and answers within seconds, so that the isolator may freeze that around
	// Snapshot. CSI has no word for it, and a plugin that copies files would wait for the thaw.
	Freeze bool
	FSType string // file system to ask for where a volume's options do not; "" leaves it to the plugin
	Node   string // uid of this node, kept in records
	BootID string // boot that this is, kept in the ledger; "" reads the kernel's
	// LookLimit bounds calls without effect (10 s), CallLimit one call with an effect (60 s).
	LookLimit, CallLimit time.Duration
	Log                  *zap.Logger // nil logs nothing

	// isMount says whether something is mounted at a path; tests without root put their own here.
	isMount func(path string) (bool, error)
}

// Driver is one plugin as seen from one node.
type Driver struct {
	o         Options
	root      string // of published volumes
	names     csibook.Store[csibook.Volume]
	snapshots csibook.Store[csibook.Snapshot]
	steps     *csistage.Steps
	locks     csibook.Locks
	plugin    *csiwire.Plugin
}

var (
	_ driver.Driver      = (*Driver)(nil)
	_ driver.Adopter     = (*Driver)(nil)
	_ driver.Placer      = (*Driver)(nil)
	_ driver.Sweeper     = (*Driver)(nil)
	_ driver.Measurer    = (*Driver)(nil)
	_ driver.Grower      = (*Driver)(nil)
	_ driver.Snapshotter = (*Driver)(nil)
)

// New prepares the directories. The plugin is not called before it is needed.
func New(o Options) (*Driver, error) {
	if err := o.check(); err != nil {
		return nil, fault.Op(err, "csi driver %s", o.Name)
	}
	if o.LookLimit == 0 {
		o.LookLimit = 10 * time.Second
	}
	if o.CallLimit == 0 {
		o.CallLimit = time.Minute
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.isMount == nil {
		o.isMount = mount.Is
	}
	if o.BootID == "" {
		raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "csi driver %s: boot id", o.Name)
		}
		o.BootID = strings.TrimSpace(string(raw))
	}
	d := &Driver{o: o}
	names := o.Names
	if names == "" {
		names = filepath.Join(o.Dir, "names")
	}
	for p, mode := range map[string]os.FileMode{names: 0o750, filepath.Join(o.Dir, "ledger"): 0o750, filepath.Join(o.Dir, "staging"): 0o750,
		filepath.Join(names, "snapshots"): 0o750,
		filepath.Join(o.Mounts, o.Name):   0o755} { // tasks of any user come by the last
		if err := os.MkdirAll(p, mode); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "csi driver %s", o.Name)
		}
	}
	// Paths are compared with what the kernel shows, so links in the way are resolved once, here.
	var err error
	if d.o.Dir, err = filepath.EvalSymlinks(o.Dir); err == nil {
		d.root, err = filepath.EvalSymlinks(filepath.Join(o.Mounts, o.Name))
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "csi driver %s", o.Name)
	}
	d.names = csibook.Store[csibook.Volume]{Dir: names, What: "record"}
	d.snapshots = csibook.Store[csibook.Snapshot]{Dir: filepath.Join(names, "snapshots"), What: "record of a snapshot"}
	d.plugin = csiwire.New(csiwire.Options{Name: o.Name, Endpoint: o.Endpoint, Controller: o.Controller, Secrets: o.Secrets, LookLimit: o.LookLimit, Log: o.Log})
	d.steps = &csistage.Steps{Plugin: d.plugin, Limit: o.CallLimit, Ledger: csibook.Store[csistage.Entry]{Dir: filepath.Join(d.o.Dir, "ledger"), What: "ledger"},
		Staging: filepath.Join(d.o.Dir, "staging"), Target: d.WillMountAt, IsMount: o.isMount}
	return d, nil
}

func (o Options) check() error {
	if err := volume.CheckDriver(o.Name); err != nil {
		return err
	}
	if !strings.HasPrefix(o.Name, "csi/") {
		return fault.New(fault.Invalid, "the name must be csi/<name>")
	}
	paths := []string{o.Dir, o.Mounts}
	for _, e := range []string{o.Endpoint, o.Controller} {
		if e == "" && e != o.Endpoint {
			continue
		}
		socket, err := csiwire.CheckEndpoint(e)
		if err != nil {
			return err
		}
		paths = append(paths, socket)
	}
	for _, p := range []string{o.Names, o.Secrets} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || strings.ContainsAny(p, "\n\r\x00") {
			return fault.New(fault.Invalid, "path %q is not clean and absolute", p)
		}
	}
	switch o.Scope {
	case "", driver.ScopeCluster, driver.ScopeZone, driver.ScopeNode:
	default:
		return fault.New(fault.Invalid, "scope %q is none of cluster, zone and node", o.Scope)
	}
	return nil
}

// Name gives the name that volumes call the driver by.
func (d *Driver) Name() string { return d.o.Name }

// Close ends the connection to the plugin.
func (d *Driver) Close() error { return d.plugin.Close() }

// Facts asks the plugin for its capabilities. BindsMounts is false although volumes are mounts: what is attached or staged
// does not show at the path, so Unmount must be asked also when nothing is mounted there.
func (d *Driver) Facts(ctx context.Context) (driver.Facts, error) {
	f := driver.Facts{Scope: d.o.Scope, SelfAttach: true, Verify: driver.VerifyScan, Root: d.root}
	s, err := d.plugin.Session(ctx)
	if err != nil {
		return f, err
	}
	f.Scope = d.scope(s)
	f.AttachLimit = s.AttachLimit
	f.Snapshots = s.Can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)
	f.Clones = s.Can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME) && (f.Snapshots || s.Can(spec.ControllerServiceCapability_RPC_CLONE_VOLUME))
	f.Grows = s.Grows()
	f.Freeze = d.o.Freeze && f.Snapshots
	return f, nil
}

// scope takes what the plugin does not say for the worse: volumes of a plugin with topology stay on their node.
func (d *Driver) scope(s *csiwire.Session) string {
	switch {
	case d.o.Scope != "":
		return d.o.Scope
	case s.Constrained:
		return driver.ScopeNode
	}
	return driver.ScopeCluster
}

// soleBook tells whether this driver's records are the only ones: then they keep uids, and what has no record does not exist.
func (d *Driver) soleBook(s *csiwire.Session) bool {
	return d.o.Names != "" || d.scope(s) == driver.ScopeNode
}

// WillMountAt gives the path that Mount answers.
func (d *Driver) WillMountAt(name string) string { return filepath.Join(d.root, name) }

// do checks the name and runs f while no other operation on the volume runs in this process.
func (d *Driver) do(ctx context.Context, verb, name string, f func() error) error {
	if err := volume.CheckName(name); err != nil {
		return err
	}
	what := verb + " volume " + d.o.Name + "/" + name
	unlock, err := d.locks.Lock(ctx, name)
	if err != nil {
		return fault.Op(err, "%s", what)
	}
	defer unlock()
	return fault.Op(f(), "%s", what)
}
