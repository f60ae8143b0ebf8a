// Package csiplugin serves the built-in pool driver as a CSI v1 plugin (identity, controller and node services) on a unix socket, for whoever
// speaks CSI: Mesos's storage resource providers, another orchestrator, or Holdfast's own csi driver, which is tested with it.
//
// A volume's id is its name, a snapshot's is <volume>@<snapshot>. The plugin keeps no state of its own: volumes are the pool's directories, and what is
// staged or published is what mountinfo says. Staging has the pool mount a volume (a directory needs no mount) and binds it to the staging path, publishing
// binds that to the target. What the plugin can do is what the pool's back end can: it advertises no more.
package csiplugin

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
)

// PluginName is the plugin's name in CSI's sense.
const PluginName = "pool.csi.holdfast.io"

// TopologyKey is the topology segment that holds the node's id where the pool is the node's own.
const TopologyKey = "csi.holdfast.io/node"

// Options of a plugin. Pool and NodeID are needed.
type Options struct {
	Pool   string // the pool's directory, absolute
	NodeID string
	// Mounts is where a pool that mounts file systems of its own does so; needed with every Backend but pool.Dir.
	Mounts string
	// Backend, FS, Size and FullCopies are those of pool.Options.
	Backend, FS string
	Size        volume.Bytes
	FullCopies  bool
	Scope       string // driver.ScopeCluster or ScopeNode, "" asks the file system
	Version     string
	Limit       time.Duration // how long one call may take, 60 s by default
	Log         *zap.Logger
}

// Plugin answers CSI calls.
type Plugin struct {
	spec.UnimplementedIdentityServer
	spec.UnimplementedControllerServer
	spec.UnimplementedNodeServer

	o     Options
	dir   string // the pool, without links
	pool  *pool.Pool
	local bool // volumes are on this node only
	facts driver.Facts
	locks locks
}

// New opens the pool.
func New(o Options) (*Plugin, error) {
	if o.NodeID == "" || len(o.NodeID) > 192 || strings.ContainsAny(o.NodeID, "\n\x00") {
		return nil, fault.New(fault.Invalid, "csi plugin: node id %.80q must have 1 to 192 bytes in one line", o.NodeID)
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Limit == 0 {
		o.Limit = time.Minute
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	po := pool.Options{Dir: o.Pool, Scope: o.Scope, Node: o.NodeID, Backend: o.Backend, FS: o.FS, Size: o.Size, FullCopies: o.FullCopies, Mounts: o.Mounts}
	p, err := openPool(po)
	if err != nil {
		return nil, err
	}
	facts, err := p.Facts(context.Background())
	if err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(o.Pool)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "csi plugin")
	}
	return &Plugin{o: o, pool: p, dir: dir, local: facts.Scope == driver.ScopeNode, facts: facts}, nil
}

// openPool opens a pool of directories without mounts: the staging path is the only one that a directory needs.
func openPool(o pool.Options) (*pool.Pool, error) {
	if o.Backend == pool.Dir {
		o.Mounts = ""
		return pool.Open(o)
	}
	mounts := o.Mounts
	o.Mounts = ""
	if o.Backend == "" { // what the pool has, which is only to be seen by opening it
		if p, err := pool.Open(o); err == nil || !fault.Is(err, fault.Unavailable) || mounts == "" {
			return p, err
		}
	}
	o.Mounts = mounts
	return pool.Open(o)
}

// Serve answers on a unix socket, `unix:///path`, until ctx ends. A socket that a dead plugin has left is replaced; one that answers is not.
func (p *Plugin) Serve(ctx context.Context, endpoint string) error {
	l, err := listen(endpoint)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(1<<20), grpc.MaxConcurrentStreams(256), grpc.UnaryInterceptor(p.intercept))
	spec.RegisterIdentityServer(s, p)
	spec.RegisterControllerServer(s, p)
	spec.RegisterNodeServer(s, p)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ctx.Done():
			s.Stop()
		case <-ended:
		}
	}()
	p.o.Log.Info("csi plugin listens", zap.String("endpoint", endpoint), zap.String("pool", p.dir), zap.String("node", p.o.NodeID))
	err = s.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return fault.Wrap(fault.Unavailable, err, "serve csi plugin")
}

func listen(endpoint string) (net.Listener, error) {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok || !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsAny(path, "\n\x00") {
		return nil, fault.New(fault.Invalid, "csi plugin: endpoint %q is not unix:///path", endpoint)
	}
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&fs.ModeSocket == 0 {
			return nil, fault.New(fault.Conflict, "csi plugin: %s is not a socket", path)
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fault.New(fault.Conflict, "csi plugin: another process answers at %s", path)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Wrap(fault.Unavailable, err, "csi plugin: old socket")
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "csi plugin")
	}
	if err := os.Chmod(path, 0o600); err != nil { // who may open it may mount
		l.Close()
		return nil, fault.Wrap(fault.Unavailable, err, "csi plugin")
	}
	return l, nil
}

// intercept bounds a call and turns faults into codes. Requests are not logged: they may hold secrets.
func (p *Plugin) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Limit)
	defer cancel()
	begun := time.Now()
	resp, err := h(ctx, req)
	err = asStatus(err)
	p.o.Log.Debug("call", zap.String("method", info.FullMethod), zap.Duration("took", time.Since(begun)), zap.Error(err))
	return resp, err
}

var code = map[fault.Class]codes.Code{
	fault.Invalid: codes.InvalidArgument, fault.NotFound: codes.NotFound, fault.Exists: codes.AlreadyExists, fault.Conflict: codes.FailedPrecondition,
	fault.Denied: codes.PermissionDenied, fault.Unavailable: codes.Unavailable, fault.Unknown: codes.Internal, fault.Internal: codes.Internal,
}

func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(code[fault.ClassOf(err)], err.Error())
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// GetPluginInfo names the plugin.
func (p *Plugin) GetPluginInfo(context.Context, *spec.GetPluginInfoRequest) (*spec.GetPluginInfoResponse, error) {
	return &spec.GetPluginInfoResponse{Name: PluginName, VendorVersion: p.o.Version}, nil
}

// GetPluginCapabilities says that there is a controller, and whether volumes are bound to their node.
func (p *Plugin) GetPluginCapabilities(context.Context, *spec.GetPluginCapabilitiesRequest) (*spec.GetPluginCapabilitiesResponse, error) {
	types := []spec.PluginCapability_Service_Type{spec.PluginCapability_Service_CONTROLLER_SERVICE}
	if p.local {
		types = append(types, spec.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
	}
	var out []*spec.PluginCapability
	for _, t := range types {
		out = append(out, &spec.PluginCapability{Type: &spec.PluginCapability_Service_{Service: &spec.PluginCapability_Service{Type: t}}})
	}
	way := map[string]spec.PluginCapability_VolumeExpansion_Type{driver.GrowsOnline: spec.PluginCapability_VolumeExpansion_ONLINE,
		driver.GrowsOffline: spec.PluginCapability_VolumeExpansion_OFFLINE}
	if w, ok := way[p.facts.Grows]; ok {
		out = append(out, &spec.PluginCapability{Type: &spec.PluginCapability_VolumeExpansion_{VolumeExpansion: &spec.PluginCapability_VolumeExpansion{Type: w}}})
	}
	return &spec.GetPluginCapabilitiesResponse{Capabilities: out}, nil
}

// Probe fails while the pool's directory is not there.
func (p *Plugin) Probe(ctx context.Context, _ *spec.ProbeRequest) (*spec.ProbeResponse, error) {
	if _, err := p.pool.Facts(ctx); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &spec.ProbeResponse{}, nil
}
